"""A client of an endpoint that writes its own JSON, and keeps all that it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.integration.live import Live, token
from tests.integration.support import DEADLINE_S, client, closed


class Wire:
    """A client by hand.

    Attributes:
        told: Everything that it was told, in order, pings aside.
        pings: How many pings came.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.told: list[Any] = []
        self.pings = 0
        self.pongs = True

    async def send(self, *commands: Any) -> None:
        await self.socket.send("\n".join(json.dumps(each) for each in commands))

    async def next(self) -> Any:
        """What it is told next."""
        before = len(self.told)
        while len(self.told) == before:
            await self.read()
        return self.told[-1]

    async def read(self) -> None:
        message = await asyncio.wait_for(self.socket.recv(), DEADLINE_S)
        for line in message.splitlines():
            told = json.loads(line)
            if told:
                self.told.append(told)
            else:
                self.pings += 1
                if self.pongs:
                    await self.send({})

    async def answers(self, *numbers: int) -> list[Any]:
        """The answers to commands, by their ids. What comes meanwhile is in `told`."""
        while not {each.get("id") for each in self.told} >= set(numbers):
            await self.read()
        found = {each["id"]: each for each in self.told if "id" in each}
        return [found[number] for number in numbers]

    async def ask(self, number: int, **request: Any) -> Any:
        await self.send({"id": number, **request})
        return (await self.answers(number))[0]

    async def connect(self, user: str = "ann") -> Any:
        return (await self.ask(1, connect={"token": token(user)}))["connect"]

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        while not any(map(wanted, self.told)):
            await self.read()
        return next(filter(wanted, self.told))

    async def pushed(self, room: str, kind: str = "pub") -> Any:
        """What was pushed from a room."""
        push = await self.until(lambda each: each.get("push", {}).get("channel") == room and kind in each["push"])
        return push["push"][kind]

    def publications(self, room: str) -> list[Any]:
        pushes = [each["push"] for each in self.told if "push" in each]
        return [each["pub"]["data"] for each in pushes if each.get("channel") == room and "pub" in each]

    async def close_code(self) -> int | None:
        try:
            while True:
                await self.read()
        except ConnectionClosed:
            return (await closed(self.socket))[0]


def error(answer: Any) -> int:
    code: int = answer["error"]["code"]
    return code


def rpc(number: int, method: str, data: Any = None) -> dict[str, Any]:
    return {"id": number, "rpc": {"method": method, **({} if data is None else {"data": data})}}


def subscribe(number: int, room: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "subscribe": {"channel": room, **more}}


def unsubscribe(number: int, room: str) -> dict[str, Any]:
    return {"id": number, "unsubscribe": {"channel": room}}


@asynccontextmanager
async def wire(live: Live, user: str | None = "ann", path: str = "/live", **options: Any) -> AsyncIterator[Wire]:
    async with client(live.server, path, max_size=None, max_queue=None, **options) as socket:
        made = Wire(socket)
        if user is not None:
            await made.connect(user)
        yield made
