"""A fuzzer of what clients receive: whole frames, in order, none twice, none missing, none that is somebody else's.

Guests come and go on every transport, read fast, slowly or not at all, ping, half-close, vanish; hosts on the server's
loop broadcast, exclude, send to one and to users, let the handler's own ``websocket.send_*`` run, and send guests away.
The `Ledger` notes on the server's loop what was sent to whom, and in which order; each session is held against it when
it has ended (`check`).

What a failure says begins with the seed. ``HUBBUB_FUZZ_SEED=... pytest tests/integration/test_wire_fuzz.py -m slow``
goes on from that seed; as threads are at work, it may take some rounds to happen again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from hubbub import Connection, ConnectionManager, Limits, Message, RoomOptions
from hubbub.connections.connection import session_of
from hubbub.rooms import fanout
from tests.integration.support import assert_nothing_left, eventually
from tests.integration.wire_client import (
    CHUNK,
    TRANSPORTS,
    Certificate,
    Site,
    Violation,
    WireClient,
    site,
    stamp,
    stamped,
)
from tests.wrapping import SPEAKS_ARRAYS, speak, unwrapped

KIB = 1024
LONG_S = float(os.environ.get("HUBBUB_FUZZ_S", "180"))
ROUND_S = 8.0

EVERYONE = "everyone"
ROOMS = ("hall", "plain", "kept", "replayed", "oldest", "newest", "latest")
REPLAY = 300
OPTIONS = {
    "hall": RoomOptions(announce=True, grace_s=0.05),
    "kept": RoomOptions(history=(100_000, 600.0)),
    "replayed": RoomOptions(history=(100_000, 600.0), replay=REPLAY),
    "oldest": RoomOptions(overflow="drop_oldest"),
    "newest": RoomOptions(overflow="drop_newest"),
    "latest": RoomOptions(overflow="latest"),
}
SLICES = fanout.SLICE_S, fanout._STRIDE
LOSSY = {"oldest", "newest", "latest"}
BOUNDARIES = (125, 126, 127, 65_534, 65_535, 65_536, 65_537)
GUESTS, HOSTS, USERS = 36, 8, 10
BYE, SENT_AWAY, APP_CLOSED = 4000, 4001, 4002
DONE_S = 15.0


# What was sent


@dataclass
class Stay:
    """A session's time in a room, in numbers of the room's messages.

    What has a number from ``sure_from`` to ``sure_until`` is for it; from ``maybe_from`` to ``maybe_until`` may be.
    """

    maybe_from: int
    sure_from: int
    sure_until: int | None = None
    maybe_until: int | None = None


@dataclass
class Session:
    """One socket, as the server's side of the test knows it."""

    name: str
    guest: str
    user: str | None
    connection: Connection | None = None
    stays: dict[str, list[Stay]] = field(default_factory=lambda: defaultdict(list))
    cut: int | None = None
    over: bool = False


@dataclass
class Ledger:
    """Everything that was sent. Written on the server's loop only."""

    clock: int = 0
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    excluded: dict[str, dict[int, set[str]]] = field(default_factory=lambda: defaultdict(dict))
    sessions: dict[str, Session] = field(default_factory=dict)
    lost: int = 0

    def note(self, stream: str, *, size: int = 0, exclude: Collection[Session] = (), then: int = 0) -> str:
        """The next message of a stream.

        Args:
            stream: A room, ``user/...`` or ``to/...``.
            size: The bytes that it is to have.
            exclude: Who is not to get it.
            then: How many empty messages come right after it; they can't say so themselves.
        """
        self.clock += 1
        number = self.counts[stream]
        self.counts[stream] += 1
        if exclude:
            self.excluded[stream][number] = {each for one in exclude for each in (one.name, one.guest)}
        return stamp(stream, number, self.clock, then, size=size)

    def enters(self, session: Session, *streams: str, maybe_from: dict[str, int] | None = None) -> None:
        for stream in streams:
            now = self.counts[stream]
            session.stays[stream].append(Stay((maybe_from or {}).get(stream, now), now))

    def leaves(self, session: Session, stream: str) -> None:
        stay = session.stays[stream][-1]
        if stay.sure_until is None:
            stay.sure_until = self.counts[stream]
        stay.maybe_until = self.counts[stream]

    def cuts(self, session: Session, code: int) -> None:
        """From here on nothing more is for the session; all that was before is to arrive, and then a Close."""
        if session.cut is None:
            session.cut = code
            for stream, stays in session.stays.items():
                if stays[-1].sure_until is None:
                    stays[-1].sure_until = self.counts[stream]


# The server


class Stage:
    """An app, its manager, and the hosts that send."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.ledger = Ledger()
        self.sending: set[asyncio.Task[None]] = set()
        self.over = False
        self.fast_paths: set[float] = set()
        limits = Limits(
            max_messages_per_s=None,
            max_outbox_bytes=2048 * KIB,
            stall_timeout_s=DONE_S,
            close_timeout_s=DONE_S,
            handler_timeout_s=DONE_S,
        )
        self.manager = ConnectionManager(rooms=OPTIONS, limits=limits)
        self.app = FastAPI()
        self.manager.install(self.app)
        self.app.websocket("/ws/{guest}/{name}")(self.handle)

    async def handle(self, websocket: WebSocket, guest: str, name: str, user: str | None = None) -> None:
        speak(websocket)
        session = self.ledger.sessions[name] = Session(name, guest, user)
        session.stays[f"to/{name}"].append(Stay(0, 0))
        own = [EVERYONE] if user is None else [EVERYONE, f"user/{user}"]
        before = {stream: self.ledger.counts[stream] for stream in own}
        try:
            async with self.manager.connect(websocket, user) as connection:
                self.ledger.enters(session, *own, maybe_from=before)
                session.connection = connection
                self.fast_paths.add(self.manager.stats().fast_path)
                async for message in connection:
                    assert isinstance(message, str)
                    await self.obey(session, connection, json.loads(message))
        finally:
            session.connection = None
            session.over = True

    async def obey(self, session: Session, connection: Connection, order: dict[str, Any]) -> None:
        """Does what a client asks of its handler."""
        rng, ledger, room = random.Random(order["rng"]), self.ledger, order.get("room", "")
        match order["do"]:
            case "join":
                if room == "replayed" and room not in session.stays:  # once, or it would get the same again
                    first = max(0, ledger.counts[room] - REPLAY)
                    session.stays[room].append(Stay(first, first))
                    await connection.join(room)
                elif room != "replayed" and room not in connection.rooms:
                    ledger.enters(session, room)
                    await connection.join(room)
            case "leave":
                if room in connection.rooms:
                    # Told before the wait for the broker: the peer may be cut meanwhile.
                    ledger.leaves(session, room)
                    await connection.leave(room)
            case "echo":  # what a handler sends comes after what it published
                await self.broadcast(rng, session)
                await self.send_to(session, rng)
            case "raw":
                for _ in range(rng.randint(1, 4)):
                    await self.send_raw(session, rng)
                    await self.broadcast(rng, session)
            case "close":
                ledger.cuts(session, APP_CLOSED)
                if rng.random() < 0.5:
                    await connection.close(APP_CLOSED, "as you wish")
                else:
                    await connection.websocket.close(APP_CLOSED, "as you wish")
                # The peer has not answered yet: nothing of this may reach it.
                await self.broadcast(rng, session)
                await self.send_to(session, rng)
                try:
                    await connection.websocket.send_text(ledger.note(f"to/{session.name}"))
                except (WebSocketDisconnect, RuntimeError):
                    pass  # Starlette's own words, or ours
                else:
                    raise AssertionError("a send after the close was taken")
            case "bye":
                await self.send_to(session, rng)
                ledger.cuts(session, BYE)
                await connection.close(BYE, "bye")

    def someone(self, rng: random.Random) -> Session | None:
        known = [each for each in tuple(self.ledger.sessions.values()) if each.connection is not None]
        return rng.choice(known) if known else None

    def some_room(self, rng: random.Random) -> str:
        if rng.random() < 0.05:
            return EVERYONE
        if rng.random() < 0.3:
            return f"own-{rng.randrange(GUESTS)}"
        return rng.choice(ROOMS)

    async def broadcast(self, rng: random.Random, by: Session | None) -> None:
        """Publishes to a room, at times without its sender or somebody else."""
        room, exclude = self.some_room(rng), list[Session | None]()
        if rng.random() < 0.3:
            exclude = [by]
        elif rng.random() < 0.1:
            exclude = [self.someone(rng), self.someone(rng)]
        out = {each.name: each for each in exclude if each is not None and each.connection is not None}
        message = self.dressed(self.ledger.note(room, size=a_size(rng, room), exclude=out.values()), rng)
        connections = [each.connection for each in out.values() if each.connection is not None]
        key = rng.choice("abc") if room in LOSSY and rng.random() < 0.7 else None
        target: dict[str, Any] = {} if room == EVERYONE else {"room": room}
        await self.manager.broadcast(message, exclude=connections, key=key, **target)

    def dressed(self, text: str, rng: random.Random) -> Message:
        ways: list[Message] = [text, text, text.encode(), {"stamp": text}]
        return rng.choice(ways)

    async def send_to(self, session: Session, rng: random.Random) -> None:
        """Sends to one connection, in one of the ways there are."""
        connection = session.connection
        if connection is None:
            return
        choice, empties = rng.randrange(4), rng.choice([0, 0, 0, 1, 2])
        then = 0 if choice else empties
        message = self.dressed(self.ledger.note(f"to/{session.name}", size=a_size(rng, "to"), then=then), rng)
        match choice:
            case 0:
                connection.send_nowait(message)
                for _ in range(empties):
                    connection.send_nowait(rng.choice(["", b""]))
            case 1:
                await connection.send(message)
            case 2:
                await self.manager.send_personal(message, connection)
            case _:
                await self.manager.send_personal(message, connection.websocket)

    async def send_raw(self, session: Session, rng: random.Random) -> None:
        """The handler's own send, past the manager; it waits for a slow client."""
        connection = session.connection
        if connection is None or not connection.is_open:
            return
        text, websocket = self.ledger.note(f"to/{session.name}", size=a_size(rng, "to")), connection.websocket
        try:
            match rng.randrange(3):
                case 0:
                    await websocket.send_text(text)
                case 1:
                    await websocket.send_bytes(text.encode())
                case _:
                    await websocket.send_json({"stamp": text})
        except (WebSocketDisconnect, RuntimeError):
            pass  # Starlette's own words, or ours: it is closed

    async def host(self, number: int) -> None:
        """Sends at random, until the stage is closed."""
        rng = random.Random(f"{self.seed}/host/{number}")
        while not self.over:
            await self.act(rng)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice([0, 0, 0.001, 0.004]))

    async def act(self, rng: random.Random) -> None:
        dice, session = rng.random(), self.someone(rng)
        if dice < 0.45 or session is None:
            await self.broadcast(rng, None)
        elif dice < 0.5:
            for _ in range(rng.randint(2, 40)):
                await self.broadcast(rng, None)
        elif dice < 0.75:
            await self.send_to(session, rng)
        elif dice < 0.87:
            if len(self.sending) < 50:
                task = asyncio.create_task(self.send_raw(session, rng))
                self.sending.add(task)
                task.add_done_callback(self.sending.discard)
        elif dice < 0.99:
            user = f"u{rng.randrange(USERS)}"
            text = self.ledger.note(f"user/{user}", size=a_size(rng, "user"))
            await self.manager.send_to_user(user, self.dressed(text, rng))
        elif dice < 0.997:
            self.change_slices(rng)
        else:
            user = f"u{rng.randrange(USERS)}"
            for each in tuple(self.ledger.sessions.values()):  # the clients' thread takes out who is done
                if each.user == user and each.connection is not None and each.connection.is_open:
                    self.ledger.cuts(each, SENT_AWAY)
            await self.manager.disconnect_user(user, SENT_AWAY, "out")

    def change_slices(self, rng: random.Random) -> None:
        """How long a flush may keep the loop: as ever, or for a single member."""
        fanout.SLICE_S, fanout._STRIDE = rng.choice([SLICES, SLICES, (0.0, 1)])

    async def hosts(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(HOSTS):
                group.create_task(self.host(number))
        while self.sending:
            await asyncio.wait(self.sending)


def a_size(rng: random.Random, stream: str) -> int:
    dice, many = rng.random(), stream in ROOMS or stream == EVERYONE
    if dice < 0.8:
        return rng.randint(0, 700)
    if dice < 0.97 or (many and dice < 0.99):
        return rng.choice(BOUNDARIES[:3])
    if dice < 0.995 or many:
        return rng.choice(BOUNDARIES[3:])
    return 1024 * KIB


# The clients


@dataclass
class Log:
    """What one session received, in its order."""

    arrivals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    empties: int = 0
    newest: int = 0
    barrier: int = 0

    def take(self, session: str, stream: str, number: int, clock: int, then: int) -> None:
        """A message: whom it is for, and its place among what is sent to one connection, are seen at once."""
        if stream.startswith("to/"):
            if stream != f"to/{session}":
                raise Violation(f"a message for {stream[3:]} reached {session}")
            if clock < self.newest:
                raise Violation(f"{stream} {number} came after what was published later")
            self.barrier = clock
        elif clock < self.barrier and stream != "replayed":
            raise Violation(f"{stream} {number} came after what was sent later")
        if stream != "replayed":
            self.newest = max(self.newest, clock)
        numbers = self.arrivals[stream]
        if numbers and number <= numbers[-1]:
            raise Violation(f"{stream} {number} came after {stream} {numbers[-1]}")
        numbers.append(number)
        self.empties += then


class Guest:
    """A client that comes, misbehaves, goes and comes back."""

    def __init__(self, stage: Stage, place: Site, number: int) -> None:
        self.rng = random.Random(f"{stage.seed}/guest/{number}")
        self.stage = stage
        self.place = place
        self.name = f"g{number}"
        self.own = f"own-{number}"
        self.sessions = 0
        self.complete = 0
        self.arrays = number % 3 == 2  # every third guest speaks another protocol

    async def live(self) -> None:
        while not self.stage.over:
            await self.session()

    async def session(self) -> None:
        rng, self.sessions = self.rng, self.sessions + 1
        session = f"{self.name}-{self.sessions}"
        user = rng.choice([None, *(f"u{number}" for number in range(USERS))])
        query = SPEAKS_ARRAYS if self.arrays else ""
        query += "" if user is None else f"&user={user}"
        log = Log()
        client = await self.place.client(
            f"/ws/{self.name}/{session}?{query}",
            deflate=rng.choice([None, None, "", "server_no_context_takeover", "client_max_window_bits"]),
            buffers=rng.choice([None, 32 * KIB, 64 * KIB]),
            answers=rng.random() < 0.8,
        )
        visit = Visit(self, session, client, log)
        reading = asyncio.create_task(visit.read_all())
        try:
            await self.behave(visit, reading)
            done, _ = await asyncio.wait([reading], timeout=DONE_S)
            if not done:
                raise AssertionError(f"{session} does not end: {visit.state()}")
            reading.result()
        except Violation as violation:
            raise Violation(f"{session}: {violation} ({visit.state()})") from None
        finally:
            reading.cancel()
            client.reset()
        await eventually(lambda: session not in self.stage.ledger.sessions or self.ended(session), DONE_S)
        known = self.stage.ledger.sessions.pop(session, None)
        if known is not None:
            self.complete += check(self.stage.ledger, known, log, client.closed)

    def ended(self, session: str) -> bool:
        return self.stage.ledger.sessions[session].over

    async def behave(self, visit: Visit, reading: asyncio.Task[None]) -> None:
        """Does what clients do, and then ends the session in one of the ways there are."""
        rng, client = self.rng, visit.client
        for room in [self.own, *rng.sample(ROOMS, rng.randint(0, 4))]:
            visit.order("join", room=room)
        for _ in range(rng.randint(1, 50)):
            if reading.done() or client.closed is not None or self.stage.over:
                break
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003, 0.01]))
            match rng.randrange(12):
                case 0 | 1 | 2:
                    for _ in range(rng.randint(1, 5)):
                        client.ping(rng.choice([4, 8, 125]))
                case 3 | 4:
                    visit.order(rng.choice(["join", "leave"]), room=rng.choice([self.own, *ROOMS]))
                case 5 | 6 | 7:
                    visit.order("echo")
                case 8:
                    visit.order("raw")
                case 9 | 10:
                    visit.change_pace(rng)
                case _:
                    pass
        way = rng.choice(["bye", "bye", "close me", "close", "half-close", "reset"])
        visit.pace = rng.choice(["fast", "slow"])
        visit.go_on.set()
        if self.stage.over or way == "bye":
            visit.order("bye")
        elif way == "close me":
            visit.order("close")
        elif way == "reset":
            client.reset()
        elif way == "half-close" and client.can_half_close:
            client.half_close(may_be_cut=self.place.cuts_the_half_closed)
        else:
            client.close(rng.choice([1000, 1001, 3000]))


class Visit:
    """One session, seen from the client."""

    def __init__(self, guest: Guest, name: str, client: WireClient, log: Log) -> None:
        self.guest = guest
        self.name = name
        self.client = client
        self.log = log
        self.pace = guest.rng.choice(["fast", "fast", "slow"])
        self.go_on = asyncio.Event()
        self.go_on.set()

    def state(self) -> str:
        """What is known of a session that does not end."""
        known = self.guest.stage.ledger.sessions.get(self.name)
        shown = f"{self.pace}, may read {self.go_on.is_set()}, closed {self.client.closed}, {known}"
        if known is not None and known.connection is not None:
            writer = session_of(known.connection).writer
            shown += f", {writer.queued_bytes} bytes wait, {writer.transport.buffered} buffered"
        return shown

    def order(self, what: str, **more: str) -> None:
        self.client.send(json.dumps({"do": what, "rng": self.guest.rng.random(), **more}))

    def change_pace(self, rng: random.Random) -> None:
        self.pace = rng.choice(["fast", "slow", "stopped"])
        if self.pace == "stopped":
            self.go_on.clear()
            asyncio.get_running_loop().call_later(rng.choice([0.02, 0.1, 0.3]), self.go_on.set)

    async def read_all(self) -> None:
        rng = random.Random(self.guest.rng.random())
        while not self.client.ended:
            await self.go_on.wait()
            if self.pace == "slow" and not self.guest.stage.over:
                await asyncio.sleep(0.001)
                size = rng.choice([1, 2, 3, 10, 200, 2000, 20_000])
            else:
                size = CHUNK
            for message in await self.client.read(size):
                self.take(message)
            if self.client.closed is not None and not self.client.answers:
                await asyncio.sleep(rng.choice([0, 0.01, 0.1]))
                self.client.answer()

    def take(self, message: str | bytes) -> None:
        if self.guest.arrays and message[:1] == "[":  # else the handler sent it to the socket, past the protocol
            message = unwrapped(message)
        if not message:
            self.log.empties -= 1
            if self.log.empties < 0:
                raise Violation("an empty message that nobody sent")
            return
        if isinstance(message, str) and message[0] == "{":
            self.take_json(json.loads(message))
        else:
            self.take_stamped(message)

    def take_json(self, value: dict[str, Any]) -> None:
        match value:
            case {"stamp": text}:
                self.take_stamped(text)
            case {"type": "user_joined" | "user_left", "room": "hall"}:
                pass
            case _:
                raise Violation(f"what nobody sent: {value}")

    def take_stamped(self, message: str | bytes) -> None:
        stream, number, clock, then = stamped(message)
        self.log.take(self.name, stream, int(number), int(clock), int(then))


def check(ledger: Ledger, session: Session, log: Log, closed: tuple[int, str] | None) -> bool:
    """Holds what a session received against what was sent: a prefix of it, or all of it where the end was orderly.

    Returns:
        Whether it was to be all.
    """
    complete = session.cut is not None and closed is not None and closed[0] == session.cut
    if strangers := log.arrivals.keys() - session.stays.keys():
        raise Violation(f"{session.name} was never in {strangers}, and got {log.arrivals[strangers.pop()][:3]}")
    for stream, stays in session.stays.items():
        got = log.arrivals.get(stream, [])
        due, may = due_of(ledger, session, stream, stays)
        if others := sorted(set(got) - set(due) - set(may)):
            raise Violation(f"{session.name} got {others[:5]} of {stream}, which were not for it: {stays}")
        if stream in LOSSY:
            ledger.lost += len(set(due) - set(got)) if complete else 0
        else:  # how far a replay gets before a close, nobody knows
            wanted = due if complete and stream != "replayed" else due[: bisect_left(due, got[-1])] if got else []
            if holes := sorted(set(wanted) - set(got)):
                raise Violation(f"{session.name} missed {holes[:5]} of {stream}: {stays}, {complete=}")
    if complete and log.empties:
        raise Violation(f"{session.name} missed {log.empties} empty messages")
    return complete


def due_of(ledger: Ledger, session: Session, stream: str, stays: list[Stay]) -> tuple[list[int], list[int]]:
    """The messages of a stream that are for a session, and those that may be."""
    due, may, excluded = [], [], ledger.excluded.get(stream, {})
    for stay in stays:
        end = ledger.counts[stream] if stay.maybe_until is None else stay.maybe_until
        sure_end = end if stay.sure_until is None else stay.sure_until
        for number in range(stay.maybe_from, end):
            names = excluded.get(number, ())
            if session.name in names:
                continue
            if session.guest in names or not stay.sure_from <= number < sure_end:
                may.append(number)
            else:
                due.append(number)
    return due, may


# The tests


class Errors(logging.Handler):
    """What the server complained of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.threadName}: {self.format(record)}"[-300:])


@contextmanager
def no_complaints(transport: str) -> Iterator[None]:
    errors = Errors()
    logging.getLogger().addHandler(errors)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(errors)
    if transport in {"asgi", "tls"}:  # there it is uvicorn and asyncio that write on until they hear of the loss
        errors.lines = [line for line in errors.lines if not line.endswith("socket.send() raised exception.")]
    assert not errors.lines, errors.lines[:3]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("certificate"))


async def act_out(stage: Stage, place: Site, seconds: float) -> list[Guest]:
    """Lets the hosts and the guests loose on each other for a while."""
    guests = [Guest(stage, place, number) for number in range(GUESTS)]
    hosting = asyncio.ensure_future(place.server.acall(stage.hosts(), seconds + 2 * DONE_S))
    ending = asyncio.get_running_loop().call_later(seconds, setattr, stage, "over", True)
    try:
        async with asyncio.TaskGroup() as group:
            for guest in guests:
                group.create_task(guest.live())
    finally:
        ending.cancel()
        stage.over = True
        await hosting
    await eventually(lambda: not place.server.server.server_state.tasks)
    return guests


def fuzz(seed: str, transport: str, loop: str, certificate: Certificate, seconds: float) -> None:
    """One round; fails with the seed."""
    stage = Stage(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "SLICE_S", SLICES[0])  # the stage changes both; here they are put back
        patch.setattr(fanout, "_STRIDE", SLICES[1])
        try:
            with no_complaints(transport), site(stage.app, transport, loop, certificate, **CONFIG) as place:
                guests = asyncio.run(act_out(stage, place, seconds))
        except BaseException as error:
            raise AssertionError(f"seed {seed} on {transport} and {loop}: {first_of(error)}") from error
    assert stage.fast_paths == {place.fast_path}
    assert bool(place.direct) == (transport == "direct"), "not the transport that this is to test"
    assert_nothing_left(stage.manager)
    assert stage.ledger.lost <= stage.manager.stats().dropped, "what was dropped is not counted"
    assert sum(guest.complete for guest in guests) >= GUESTS // 4, "hardly anybody saw everything"


CONFIG: dict[str, Any] = {"ws_ping_interval": 0.1, "ws_ping_timeout": 60.0, "log_level": "warning"}


def first_of(error: BaseException) -> BaseException:
    return first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_short_fuzz(transport: str, loop: str, certificate: Certificate) -> None:
    fuzz("17", transport, loop, certificate, 0.8)


@pytest.mark.slow
@pytest.mark.timeout(LONG_S + 120)
def test_a_long_fuzz(certificate: Certificate) -> None:
    started, seed = time.monotonic(), int(os.environ.get("HUBBUB_FUZZ_SEED", random.SystemRandom().randrange(10**6)))
    for number in range(10**6):
        left = LONG_S - (time.monotonic() - started)
        if left <= 0:
            break
        transport, loop = TRANSPORTS[number % 4], ("asyncio", "uvloop")[number // 4 % 2]
        fuzz(str(seed + number), transport, loop, certificate, min(ROUND_S, max(left, 1.0)))
