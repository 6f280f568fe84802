"""A fuzzer of endpoints: clients that send anything, whole or broken, in any order and at any time, in both encodings.

Meanwhile the app publishes, sends users away and takes rights back. Whatever comes, the server answers with documented
codes only, each command once, and closes with documented codes only; nothing is logged with a traceback; and nothing is
left of a client that is gone.

What a failure says begins with the seed. With ``HUBBUB_FUZZ_SEED`` the slow test goes on from that seed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, HTTPException, Query, WebSocketException
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from hubbub import Connection, ConnectionManager, History, Limits, RoomOptions
from hubbub.endpoints.results import Grant, Welcome
from hubbub.protocols.centrifugo.codes import DisconnectCode
from tests.integration.support import LiveServer, client, closed, eventually, serving
from tests.unit.protocols.centrifugo.said import parts, sized

sdk: Any = importlib.import_module("centrifuge.protocol.client_pb2")  # it is not typed

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_sweeps")]

LONG_S = float(os.environ.get("HUBBUB_FUZZ_S", "120"))
CLIENTS, FRAMES = 10, 12
ERRORS = {*range(100, 114), *range(400, 2000)}
CLOSES = {*(each.code for each in DisconnectCode), 4321, 1009}  # 1009: of the server, for a frame that is far too big
USERS = ("ann", "bob", "")
ROOMS = ("chat:a", "chat:b", "plain:a", "brief:a", "slow:a", "no:a", "$user", "$everyone", "news", "x" * 300, "chat:é")
METHODS = ("echo", "beside", "sync", "forbid", "busy", "close", "none", "")
OPTIONS = {
    "chat:*": RoomOptions(history=History(50), announce=True, grace_s=0.05, client_presence=True, client_history=True),
    "brief:*": RoomOptions(history=History(5), announce=True, grace_s=0, client_presence=True),
    "news": RoomOptions(history=History(5), grace_s=0),
    "*": RoomOptions(grace_s=0),
}


async def current_user(name: Annotated[str, Query()]) -> str | None:
    return name or None


class Site:
    """The app. None of its functions fails, so that whatever is logged with a traceback is a fault of ours."""

    def __init__(self, random_: random.Random) -> None:
        self.random = random_
        self.manager = ConnectionManager(
            rooms=OPTIONS,
            everyone=RoomOptions(grace_s=0),
            users=RoomOptions(grace_s=0),
            limits=Limits(max_message_bytes=64 * 1024, max_messages_per_s=None),
        )
        self.app = FastAPI()
        self.manager.install(self.app)
        self.server: LiveServer
        self._declare()

    def _declare(self) -> None:
        live = self.manager.endpoint("/live", auth=current_user)

        @live.connect
        async def hello(message: Any = None) -> Welcome:
            return Welcome(data={"you said": message}, rooms=["news"])

        @live.room("{kind}:{room}")
        async def may_read(kind: str, room: str) -> bool | Grant:
            if kind == "slow":
                await asyncio.sleep(0.002)
            return Grant(expires_at=time.time() + 0.05) if kind == "brief" else kind != "no"

        @live.on("echo")
        async def echo(message: Any, connection: Connection) -> Any:
            await self.manager.broadcast({"echo": message}, room="chat:a")
            return message

        @live.on("beside", concurrent=True)
        async def beside(message: list[int]) -> int:
            await asyncio.sleep(0.001)
            return len(message)

        @live.on("sync")
        def sync(message: str) -> bytes:
            return message.encode()

        @live.on("forbid")
        async def forbid() -> None:
            raise HTTPException(403, "not you")

        @live.on("busy")
        async def busy() -> None:
            raise HTTPException(503, {"in": 5})

        @live.on("close")
        async def close() -> None:
            raise WebSocketException(4321, "as you like")

        @live.publish("chat:{room}")
        async def publish(message: Any, room: str) -> Any:
            return message

    async def act(self) -> None:
        """Does something, as apps do."""
        room = self.random.choice(["chat:a", "chat:b", "plain:a", "brief:a", "news"])
        match self.random.randrange(12):
            case 0:
                await self.manager.disconnect_user(self.random.choice(USERS[:2]))
            case 1:
                for connection in self.manager.connections(room=room)[:1]:
                    await connection.leave(room)
            case 2:
                for connection in self.manager.connections(room=room)[:1]:
                    await connection.close(4321, "the app closes")
            case 3:
                await self.manager.broadcast(os.urandom(10), room=room)
            case 4:
                await self.manager.send_to_user("ann", {"to": "ann"})
            case _:
                await self.manager.broadcast({"n": 1}, room=room)

    async def is_empty(self) -> bool:
        engine, stats = self.manager._hubbub, self.manager.stats()
        if (stats.connections, stats.users, stats.rooms, stats.queued_bytes) != (0, 0, 0, 0):
            return False
        for room in ROOMS:
            if await self.server.acall(engine.broker.connections(room)):
                return False
        return (
            not engine.memberships.rooms
            and not any(True for _ in engine.sweeper.sockets)
            and not self.server.server.server_state.tasks
            and not len(engine.tasks)
        )


class Guest:
    """A client that sends anything, and notes what it is told.

    Attributes:
        asked: How often it used each id for a command.
        answered: How often each id was answered.
    """

    def __init__(self, random_: random.Random, protobuf: bool) -> None:
        self.random = random_
        self.protobuf = protobuf
        self.asked: Counter[int] = Counter()
        self.answered: Counter[int] = Counter()
        self.faults: list[str] = []
        self.broke_something = False
        self._number = 0

    # What it sends

    def frame(self) -> str | bytes:
        """One message: mostly whole commands, sometimes anything at all."""
        chance = self.random.random()
        commands = [self.command() for _ in range(self.random.choice([1, 1, 2, 5, 20]))]
        if chance < 0.01:
            commands *= self.random.choice([30, 600])
        for each in commands:
            self.asked[each.get("id", 0)] += 1
        data = self.written(commands)
        if 0.01 <= chance < 0.03:
            data, self.broke_something = self.broken(data), True
        elif 0.03 <= chance < 0.04:
            data = self.random.choice([b"", "", b"\x00", "{}", "\n", b"\xff" * 9, "[" * 5000, "null", self.written([])])
        elif 0.04 <= chance < 0.05:
            data = data.encode() if isinstance(data, str) else data.hex()
        return data

    def written(self, commands: list[dict[str, Any]]) -> str | bytes:
        if not self.protobuf:
            return "\n".join(json.dumps(each) for each in commands)
        return b"".join(sized(self.in_protobuf(each).SerializeToString()) for each in commands)

    def in_protobuf(self, command: dict[str, Any]) -> Any:
        record = sdk.Command()
        for name, value in command.items():
            if name == "id":
                record.id = value % 2**32
            else:
                part = getattr(record, name, None)
                if part is not None:
                    part.SetInParent()
                    _fill(part, value)
        return record

    def broken(self, data: str | bytes) -> str | bytes:
        """The data, cut off, with another byte, or with something in the middle."""
        raw = data.encode() if isinstance(data, str) else data
        at = self.random.randrange(len(raw) + 1)
        raw = self.random.choice(
            [
                raw[:at],
                raw[:at] + self.random.randbytes(1) + raw[at + 1 :],
                raw[:at] + self.random.randbytes(3) + raw[at:],
            ]
        )
        return raw if self.protobuf else raw.decode(errors="replace")

    def command(self) -> dict[str, Any]:
        choose = self.random.choice
        self._number += self.random.choice([1, 1, 1, 1, 1, 0])
        room, reverse = choose(ROOMS), choose([True, False])
        data: Any = choose([None, 1, "text", [1, 2], {"a": {"b": []}}, "x" * 3000, "\u2028", -0.5])
        since = choose([None, {"offset": self.random.randrange(9)}, {"offset": 2**63, "epoch": "other"}])
        requests: list[dict[str, Any]] = [
            *[{"subscribe": {"channel": room, **self.recovers(), **({} if data is None else {"data": data})}}] * 4,
            *[{"unsubscribe": {"channel": room}}] * 2,
            {"publish": {"channel": room, "data": data}},
            {"presence": {"channel": room}},
            {"presence_stats": {"channel": room}},
            {"history": {"channel": room, "limit": choose([-1, 0, 1, 2**31 - 1]), "since": since, "reverse": reverse}},
            *[{"rpc": {"method": choose(METHODS), "data": data}}] * 3,
            {"refresh": {"token": choose(["", "x"])}},
            {"sub_refresh": {"channel": room, "token": "x"}},
            {"ping": {}},
        ]  # fmt: skip
        request = choose(requests)
        if self.random.random() < 0.004:
            return choose([
                {"send": {"data": {"method": "echo", "data": data}}},
                {"send": {"data": data}},
                {"id": self._number, "connect": {}},
                {"id": self._number},
                {},
                {"id": self._number, "subscribe": {"channel": ""}},
                {"id": self._number, "subscribe": {"channel": room, "tf": {}}},
                {"id": self._number, "subscribe": {"channel": room, "flag": 3, "delta": "fossil"}},
                {"id": 2**32 - 1, **request},
                {"rpc": {"method": "echo"}},
            ])  # fmt: skip
        if not self.protobuf and self.random.random() < 0.002:  # a field of another type
            ((name, fields),) = request.items()
            key = choose([*fields, "other"]) if fields else "other"
            request = {name: {**fields, key: choose([None, 1, "", [], {}, True, 1e9, 2**64])}}
        return {"id": max(self._number, 1), **request}

    def recovers(self) -> dict[str, Any]:
        if self.random.random() < 0.6:
            return {}
        return {
            "recover": True,
            "offset": self.random.choice([0, 1, 5, 2**63]),
            "epoch": self.random.choice(["", "abcdefgh"]),
        }

    # What it is told

    def take(self, message: str | bytes) -> list[str | bytes]:
        """Notes a message; returns what it says to it at once."""
        replies: list[Any]
        if self.protobuf:
            assert isinstance(message, bytes), f"text for a client that speaks Protobuf: {message}"
            replies = [sdk.Reply.FromString(each) for each in parts(message)]
        else:
            assert isinstance(message, str), "binary for a client that speaks JSON"
            replies = [json.loads(line) for line in message.split("\n")]
        pongs = 0
        for reply in replies:
            number, code, is_push = (
                (reply.id, reply.error.code, reply.HasField("push"))
                if self.protobuf
                else (reply.get("id", 0), reply.get("error", {}).get("code", 0), "push" in reply)
            )
            if number:
                self.answered[number] += 1
                if code and code not in ERRORS:
                    self.faults.append(f"the error {code}: {reply}")
                if is_push:
                    self.faults.append(f"a push with an id: {reply}")
            elif not is_push:
                pongs += 1
        return [b"\x00" if self.protobuf else "{}"] * pongs

    async def live(self, socket: ClientConnection) -> None:
        """Connects, sends, and goes in one of several ways."""
        reading = asyncio.create_task(self._read(socket))
        try:
            await self._send(socket)
        except ConnectionClosed:
            pass
        finally:
            if socket.close_code is None and self.random.random() < 0.3:
                socket.transport.abort()
            else:
                await socket.close()
            await reading

    async def _read(self, socket: ClientConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in socket:
                for answer in self.take(message):
                    if self.random.random() < 0.99:
                        await socket.send(answer)

    async def _send(self, socket: ClientConnection) -> None:
        if self.random.random() < 0.95:
            first: dict[str, Any] = {"id": 1, "connect": self.random.choice([{}, {"data": {"a": 1}}, {"token": "x"}])}
            self._number = 1
            self.asked[1] += 1
            await socket.send(self.written([first]))
        for _ in range(self.random.randrange(FRAMES)):
            await socket.send(self.frame())
            if self.random.random() < 0.2:
                await asyncio.sleep(self.random.random() * 0.01)
        if self.random.random() < 0.5:  # all of its commands are answered before it goes
            last = self._number + 1
            self.asked[last] += 1
            await socket.send(self.written([{"id": last, "rpc": {"method": "echo", "data": 1}}]))
            await eventually(lambda: bool(self.answered[last]) or socket.close_code is not None)

    def check(self, code: int | None) -> None:
        if code not in CLOSES and code not in (1000, 1006, None):
            self.faults.append(f"closed with {code}")
        more = {number: times for number, times in self.answered.items() if times > self.asked[number]}
        if more and not self.broke_something:  # which may have been an id
            self.faults.append(f"answered more often than asked: {more}")


def _fill(record: Any, values: dict[str, Any]) -> None:
    fields = record.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if name not in fields or value is None:
            continue
        if isinstance(value, dict) and name != "data":
            getattr(record, name).SetInParent()
            _fill(getattr(record, name), value)
        else:
            setattr(record, name, json.dumps(value).encode() if name == "data" else value)


async def round_of(seed: int, site: Site) -> None:
    random_ = site.random = random.Random(seed)
    guests = [Guest(random.Random(random_.random()), random_.random() < 0.5) for _ in range(CLIENTS)]

    async def lives(guest: Guest) -> None:
        protocol = Subprotocol("centrifuge-protobuf" if guest.protobuf else "centrifuge-json")
        path = f"/live?name={guest.random.choice(USERS)}"
        async with client(site.server, path, subprotocols=[protocol], max_size=None, max_queue=None) as socket:
            await guest.live(socket)
            guest.check((await closed(socket))[0])

    going = True

    async def app_acts() -> None:
        while going:
            await site.act()
            await asyncio.sleep(0.002)

    acting = asyncio.create_task(site.server.acall(app_acts(), 120.0))
    try:
        await asyncio.gather(*map(lives, guests))
    finally:
        going = False
        await acting
    faults = [f"{'protobuf' if guest.protobuf else 'json'}: {each}" for guest in guests for each in guest.faults]
    assert not faults, f"seed {seed}: {faults}"
    await eventually(site.is_empty)


@pytest.fixture(scope="module")
def served(either_loop: str) -> Iterator[Site]:
    site = Site(random.Random(0))
    with pytest.MonkeyPatch.context() as patch, serving(site.app, loop=either_loop, log_level="warning") as server:
        patch.setattr("hubbub.endpoints.heartbeat.PING_S", 0.1)
        patch.setattr("hubbub.endpoints.heartbeat.PONG_S", 1.0)
        site.server = server
        yield site


@pytest.fixture
def site(served: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    caplog.set_level(logging.INFO)
    before = sum(served.manager.stats().errors.values())
    yield served
    records = caplog.get_records("call")
    assert [each.getMessage() for each in records if each.exc_info or each.levelno >= logging.ERROR] == []
    assert served.manager.stats().errors.get("function", 0) == 0, before


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_clients_send_has_documented_answers_and_leaves_nothing(seed: int, site: Site) -> None:
    await round_of(seed, site)


@pytest.mark.slow
@pytest.mark.timeout(LONG_S + 120)
async def test_whatever_clients_send_for_long_has_documented_answers_and_leaves_nothing(site: Site) -> None:
    seed = int(os.environ.get("HUBBUB_FUZZ_SEED", random.randrange(10**9)))
    end = time.monotonic() + LONG_S
    while time.monotonic() < end:
        await round_of(seed, site)
        seed += 1
