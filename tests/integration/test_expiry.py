"""A socket ends with the token that let it in, whatever the handler does with it; of several ends, at the earliest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import jwt
import pytest
from fastapi import Depends, FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth
from tests.integration.conftest import WallClock
from tests.integration.support import LiveServer, client, closed, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

KEY = "a key that is long enough for HS256, and no secret at all"
OVER = (1008, "token expired")
first = JWTAuth(key=KEY, algorithms=["HS256"], query="first")
second = JWTAuth(key=KEY, algorithms=["HS256"], query="second", required=[])
First = Annotated[Claims, Depends(first)]
Second = Annotated[Claims, Depends(second)]


def token(clock: WallClock, expires_in_s: float | None) -> str:
    expiry = {} if expires_in_s is None else {"exp": clock.now_s + expires_in_s}
    return jwt.encode({"sub": "ann", **expiry}, KEY, "HS256")


class Site:
    def __init__(self) -> None:
        self.manager = ConnectionManager()
        self.app = app = FastAPI()
        self.manager.install(app)

        @app.websocket("/accepts")
        async def accepts(websocket: WebSocket, user: First) -> None:
            await websocket.accept()
            async for _ in websocket.iter_text():
                pass

        @app.websocket("/accepts-and-connects")
        async def accepts_and_connects(websocket: WebSocket, user: First) -> None:
            await websocket.accept()
            async with self.manager.connect(websocket, user.sub) as connection:
                await connection.wait_gone()

        @app.websocket("/is-given-up")
        async def is_given_up(websocket: WebSocket, user: First) -> None:
            async with self.manager.connect(websocket, user.sub):
                self.manager.disconnect(websocket)
                async for _ in websocket.iter_text():
                    pass

        @app.websocket("/two")
        async def two(websocket: WebSocket, user: First, other: Second) -> None:
            async with self.manager.connect(websocket, user.sub) as connection:
                await connection.wait_gone()

        @app.websocket("/connects-again")
        async def connects_again(websocket: WebSocket, user: First, until: float) -> None:
            await self.manager.connect(websocket, user.sub, expires_at=until + 3600)
            async with self.manager.connect(websocket, user.sub, expires_at=until) as connection:
                await connection.wait_gone()


@pytest.fixture(scope="module", name="site")
def served() -> Iterator[tuple[LiveServer, Site]]:
    site = Site()
    with serving(site.app) as server:
        yield server, site


async def ends(server: LiveServer, path: str, clock: WallClock) -> None:
    """Connects, and is sent away two seconds later."""
    async with client(server, path) as websocket:
        clock.now_s += 2
        assert await closed(websocket) == OVER


@pytest.mark.parametrize("path", ["accepts", "accepts-and-connects", "is-given-up"])
async def test_a_socket_ends_with_its_token_whoever_accepted_it(
    site: tuple[LiveServer, Site], path: str, wall_clock: WallClock
) -> None:
    server, served = site
    before = served.manager.stats().refused.get("token_expired", 0)
    await ends(server, f"/{path}?first={token(wall_clock, 2)}", wall_clock)
    assert served.manager.stats().refused["token_expired"] == before + 1


@pytest.mark.parametrize(("one", "two"), [(2, 3600), (3600, 2), (2, None)])
async def test_of_two_tokens_the_earliest_end_holds(
    site: tuple[LiveServer, Site], one: float, two: float | None, wall_clock: WallClock
) -> None:
    await ends(site[0], f"/two?first={token(wall_clock, one)}&second={token(wall_clock, two)}", wall_clock)


async def test_of_two_ends_that_the_handler_says_the_earliest_holds(
    site: tuple[LiveServer, Site], wall_clock: WallClock
) -> None:
    first_token = token(wall_clock, 3600)
    await ends(site[0], f"/connects-again?first={first_token}&until={wall_clock.now_s + 2}", wall_clock)
