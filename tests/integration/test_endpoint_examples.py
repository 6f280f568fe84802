"""The examples of the pages about endpoints do what these pages say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from examples import infos, permissions, recovery, router, tokens
from tests.integration.json_client import Wire, error, rpc, subscribe
from tests.integration.support import LiveServer, client, serving

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def wire(server: LiveServer, path: str = "/live", token: str = "", **subs: Any) -> AsyncIterator[Wire]:
    async with client(server, path) as socket:
        made = Wire(socket)
        await made.ask(1, connect={"token": token, "subs": subs})
        yield made


async def ask(server: LiveServer, method: str, path: str, status: int = 200, **options: Any) -> Any:
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.request(method, server.http(path), **options)
    assert response.status_code == status
    return response.json()


def served(app: FastAPI) -> Iterator[LiveServer]:
    with serving(app) as server:
        yield server


class TestPermissions:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        before = {group: set(users) for group, users in permissions.members.items()}
        yield from served(permissions.app)
        permissions.members.update(before)

    async def test_members_read_and_write_and_the_others_do_not(self, server: LiveServer) -> None:
        async with wire(server, "/live?name=ann") as ann, wire(server, "/live?name=bob") as bob:
            for each in (ann, bob):
                assert "subscribe" in await each.ask(2, **subscribe(2, "group:1"))
            answer = await ann.ask(3, publish={"channel": "group:1", "data": {"text": "hello"}})
            assert answer == {"id": 3, "publish": {}}
            assert (await bob.pushed("group:1"))["data"] == {"by": "ann", "text": "hello"}
            present = (await bob.ask(4, presence={"channel": "group:1"}))["presence"]["presence"]
            assert sorted(each["user"] for each in present.values()) == ["ann", "bob"]
            assert error(await ann.ask(5, publish={"channel": "group:1", "data": {"text": ""}})) == 422
            assert error(await ann.ask(6, **subscribe(6, "group:2"))) == 103
            assert error(await ann.ask(7, publish={"channel": "group:2", "data": {"text": "hello"}})) == 103
            assert error(await ann.ask(8, **subscribe(8, "group:01"))) == 102
            assert error(await ann.ask(9, **subscribe(9, "lobby"))) == 103

    async def test_a_member_who_is_removed_reads_no_more(self, server: LiveServer) -> None:
        async with wire(server, "/live?name=ann") as ann, wire(server, "/live?name=bob") as bob:
            for each in (ann, bob):
                await each.ask(2, **subscribe(2, "group:1"))
            assert await ask(server, "DELETE", "/groups/1/members/ann") == {"was_connected": True}
            assert (await ann.pushed("group:1", "unsubscribe"))["code"] == 2000
            await bob.ask(3, publish={"channel": "group:1", "data": {"text": "she is gone"}})
            assert error(await ann.ask(4, **subscribe(4, "group:1"))) == 103
            assert ann.publications("group:1") == []
            assert await ask(server, "DELETE", "/groups/1/members/ann") == {"was_connected": False}


class TestRecovery:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from served(recovery.app)

    async def test_newcomers_get_the_last_and_those_who_return_what_they_missed(self, server: LiveServer) -> None:
        async def publish(number: int) -> None:
            await ask(server, "POST", "/news/sea", json={"title": f"{number}"})

        for number in range(1, 31):
            await publish(number)
        async with wire(server) as first:
            reply = (await first.ask(2, **subscribe(2, "news:sea")))["subscribe"]
            assert [each["data"]["title"] for each in reply["publications"]] == [f"{n}" for n in range(11, 31)]
            await publish(31)
            assert (await first.pushed("news:sea"))["offset"] == 31
        await publish(32)
        async with wire(server) as again:
            position = {"recover": True, "epoch": reply["epoch"], "offset": 31}
            reply = (await again.ask(2, **subscribe(2, "news:sea", **position)))["subscribe"]
            assert reply["recovered"]
            assert [each["data"]["title"] for each in reply["publications"]] == ["32"]


async def test_functions_of_a_router_are_called_by_their_prefix_and_know_the_path() -> None:
    with serving(router.app) as server:
        async with wire(server, "/shops/tea/live") as one:
            answer = await one.ask(2, **rpc(2, "orders.create", {"item": "Assam", "count": 2}))
            assert answer["rpc"]["data"] == "2 × Assam from tea"
            assert error(await one.ask(3, **rpc(3, "orders.create", {"item": "Assam", "count": 0}))) == 422
            assert error(await one.ask(4, **rpc(4, "create", {"item": "Assam"}))) == 104
            assert "subscribe" in await one.ask(5, **subscribe(5, "shop:tea"))
            assert error(await one.ask(6, **subscribe(6, "shop:coffee"))) == 103


async def test_clients_see_the_infos_of_each_other() -> None:
    with serving(infos.app) as server:
        async with wire(server, "/live?user_id=1") as ann, wire(server, "/live?user_id=2") as bob:
            for each in (ann, bob):
                assert "subscribe" in await each.ask(2, **subscribe(2, "chat:lobby"))
            await ann.ask(3, publish={"channel": "chat:lobby", "data": {"text": "hello"}})
            info = (await bob.pushed("chat:lobby"))["info"]
            assert (info["user"], info["conn_info"], info["chan_info"]) == ("1", {"name": "Ann"}, {"role": "owner"})
            presence = (await bob.ask(4, presence={"channel": "chat:lobby"}))["presence"]["presence"]
            assert sorted(each["conn_info"]["name"] for each in presence.values()) == ["Ann", "Bob"]
            assert presence[info["client"]] == info


class TestTokens:
    @pytest.fixture
    def server(self) -> Iterator[LiveServer]:
        yield from served(tokens.app)

    async def test_a_film_is_for_those_who_bought_it(self, server: LiveServer) -> None:
        ann = (await ask(server, "POST", "/sign-in?name=Ann"))["token"]
        headers = {"Authorization": f"Bearer {ann}"}
        film = (await ask(server, "POST", "/films/metropolis/token", headers=headers))["token"]
        await ask(server, "POST", "/films/nosferatu/token", 403, headers=headers)
        async with wire(server, token=ann) as client:
            assert error(await client.ask(2, **subscribe(2, "film:metropolis"))) == 103
            reply = (await client.ask(3, **subscribe(3, "film:metropolis", token=film)))["subscribe"]
            assert reply["expires"]
            assert 3500 < reply["ttl"] <= 3600
        assert jwt.decode(film, options={"verify_signature": False})["channel"] == "film:metropolis"
