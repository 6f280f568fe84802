"""An endpoint and its tests in one file."""

import asyncio
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel

from hubbub import ConnectionManager
from hubbub.testing import RequestRefused, endpoint_client

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
owners = {1: "ann", 2: "bob"}  # of the tickets; in a real app, a database


async def current_user(name: Annotated[str, Query()]) -> str:
    return name  # in a real app, a JWTAuth


User = Annotated[str, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Close(BaseModel):
    id: int


class Closed(BaseModel):
    id: int
    by: str


@live.room("ticket:{ticket_id}", sends=Closed)
async def may_read(ticket_id: int, user: User) -> bool:
    return owners.get(ticket_id) == user


@live.on("ticket.close")
async def close(message: Close, user: User) -> Closed:
    if owners.get(message.id) != user:
        raise HTTPException(404, "no such ticket")
    closed = Closed(id=message.id, by=user)
    await manager.broadcast(closed, room=f"ticket:{message.id}")
    return closed


def test_the_readers_of_a_ticket_see_that_it_is_closed() -> None:
    with TestClient(app) as client, endpoint_client(client, "/live", user="ann") as ann:
        ann.subscribe("ticket:1")
        assert ann.rpc("ticket.close", Close(id=1), returns=Closed) == Closed(id=1, by="ann")
        assert ann.receive_from("ticket:1", Closed) == Closed(id=1, by="ann")


def test_a_ticket_is_private() -> None:
    with TestClient(app) as client, endpoint_client(client, "/live", user="bob") as bob:
        with pytest.raises(RequestRefused) as refused:
            bob.subscribe("ticket:1")
        assert refused.value.code == 103


def test_a_ticket_has_a_number() -> None:
    with TestClient(app) as client, endpoint_client(client, "/live", user="ann") as ann:
        with pytest.raises(RequestRefused, match="id: Input should be a valid integer") as refused:
            ann.rpc("ticket.close", {"id": "first"})
        assert refused.value.code == 422


def test_a_ticket_that_is_not_yours_stays_open() -> None:
    with TestClient(app) as client, endpoint_client(client, "/live", user="ann") as ann:
        ann.subscribe("ticket:1")
        with pytest.raises(RequestRefused):
            ann.rpc("ticket.close", {"id": 2})
        assert ann.unread() == []


def test_only_the_owner_may_read() -> None:
    assert asyncio.run(may_read(1, "ann"))
    assert not asyncio.run(may_read(1, "bob"))
