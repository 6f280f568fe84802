"""A chat of typed requests, with each SDK: on one worker, and on four that share a Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, StringConstraints

from hubbub import Connection, ConnectionManager, History, RoomOptions
from tests.integration.live import User, current_user
from tests.integration.redis_server import RedisServer, fresh_prefix
from tests.integration.sdk import Refused, Sdk
from tests.integration.sdks import node as node  # fixtures
from tests.integration.sdks import sdk as sdk
from tests.integration.support import LiveServer, eventually, serving

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]


@dataclass
class Worker:
    server: LiveServer


class Members:
    """Instead of a database."""

    async def is_member(self, user_id: str, room: str) -> bool:
        return room != "staff" or user_id == "ann"


Database = Annotated[Members, Depends(Members)]


class Say(BaseModel):
    room: str
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Said(BaseModel):
    user_id: str
    text: str


def chat(url: str) -> FastAPI:
    app = FastAPI()
    manager = ConnectionManager(
        url, rooms={"chat:{room}": RoomOptions(history=History(500, ttl_s=86_400), announce=True)}
    )
    manager.install(app)
    live = manager.endpoint("/live", auth=current_user)

    @live.room("chat:{room}", sends=Said)
    async def may_read(room: str, user: User, db: Database) -> bool:
        return await db.is_member(user.sub, room)

    @live.on("say")
    async def say(message: Say, connection: Connection, user: User) -> Said:
        if not connection.is_subscribed(f"chat:{message.room}"):
            raise HTTPException(403, "join the room first")
        said = Said(user_id=user.sub, text=message.text)
        await manager.broadcast(said, room=f"chat:{message.room}")
        return said

    return app


@pytest.fixture(scope="module", params=[1, 4], ids=["one", "four"])
def workers(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[list[Worker]]:
    """The worker of each of four users."""
    count: int = request.param
    url = "memory://" if count == 1 else redis.url(prefix=fresh_prefix())
    with ExitStack() as stack:
        yield [Worker(stack.enter_context(serving(chat(url)))) for _ in range(count)] * (4 // count)


async def test_what_each_says_is_validated_answered_and_reaches_all_in_one_order(
    workers: list[Worker], sdk: Sdk, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    users = ["ann", "bob", "cyd", "dan"]
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(sdk.connected(worker, user))
            for worker, user in zip(workers, users, strict=True)
        ]
        with pytest.raises(Refused) as refused:
            await clients[0].rpc("say", {"room": name, "text": "hello"})
        assert (refused.value.code, refused.value.message) == (403, "join the room first")
        rooms = [await client.subscribed(f"chat:{name}") for client in clients]
        for client, user in zip(clients, users, strict=True):
            said = {"user_id": user, "text": f"hello from {user}"}
            assert await client.rpc("say", {"room": name, "text": said["text"]}) == said
        await eventually(lambda: all(len(room.got) == 4 for room in rooms))
        for room in rooms:
            assert sorted(each["user_id"] for each in room.got) == users
            assert room.got == rooms[0].got
            assert room.offsets == [1, 2, 3, 4]
        await eventually(lambda: set(rooms[0].joins) == set(users))
        with pytest.raises(Refused) as refused:
            await clients[1].rpc("say", {"room": name, "text": ""})
        assert refused.value.code == 422
        assert "text" in refused.value.message
        staff = await clients[1].room("chat:staff")
        await staff.subscribe()
        await eventually(lambda: [code for code, _ in staff.unsubscribed] == [103])
