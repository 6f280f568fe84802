"""An endpoint in one process, without sockets and without time: a real app, and clients that keep what they are told.

Each client is held against the protocol as it reads: what an SDK relies on, and what its rooms have published, is
checked with each frame. Nothing moves by itself: a `World` is told what happens next, and when everything that was
begun is to come to rest.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from fastapi import Depends, FastAPI, Query
from google.protobuf.json_format import MessageToDict

from hubbub import ConnectionManager, History, RoomOptions
from hubbub.brokers import Broker, MemoryBroker
from hubbub.codec import Kind, Payload, dumps
from hubbub.envelope import Envelope
from hubbub.positions import Position
from hubbub.protocols.centrifugo.messages import (
    Command,
    ConnectRequest,
    HistoryRequest,
    Pong,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    Request,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)
from tests.unit.protocols.centrifugo.said import envelope_in_json, in_protobuf, parts, sdk, sized
from tests.unit.rooms.fleet_sim import StillLoop
from tests.unit.support import Hub

SHORT, REPLAY = 3, 2
GRACE_S = 2.0
ROOMS = {
    "kept:a": RoomOptions(history=History(10_000), announce=True, grace_s=0, client_presence=True, client_history=True),
    "short:a": RoomOptions(history=History(SHORT), announce=True, grace_s=GRACE_S, client_presence=True),
    "replayed:a": RoomOptions(history=History(10_000), replay=REPLAY, grace_s=0, client_presence=True),
    "plain:a": RoomOptions(grace_s=0, client_presence=True),
}
NAMES = tuple(ROOMS)
PEOPLE = ("ann", "ann", "bob", "", "cy", "bob")
"""The user of each client; the one without a name is nobody."""


async def current_user(name: Annotated[str, Query()]) -> str | None:
    return name or None


User = Annotated[str | None, Depends(current_user)]


def app_of(broker: Broker | str) -> tuple[FastAPI, ConnectionManager]:
    app, manager = FastAPI(), ConnectionManager(broker, rooms=ROOMS)
    manager.install(app)
    live = manager.endpoint("/live", auth=current_user)

    @live.room("{kind}:{room}")
    async def may_read(kind: str, room: str) -> bool:
        await asyncio.sleep(0)  # as one that asks a database
        return True

    @live.publish("{kind}:{room}")
    async def publish(message: int, kind: str, room: str, user: User) -> int:
        return message

    return app, manager


def unpacked(value: Any) -> Any:
    """A reply in Protobuf, as it looks in JSON."""
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: json.loads(b64decode(each))
        if name in ("data", "conn_info", "chan_info") and isinstance(each, str)
        else int(each)
        if name == "offset"
        else unpacked(each)
        for name, each in value.items()
    }


async def _nothing() -> None:
    pass


class Tapped(MemoryBroker):
    """Notes what is published into each room, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: defaultdict[str, list[int]] = defaultdict(list)

    def _publish(self, channel: str, envelope: Envelope, *, keep: bool) -> Position | None:
        log = self.logs[channel]
        log.append(int(envelope.payload.data))  # before it is delivered
        position = super()._publish(channel, envelope, keep=keep)
        assert position is None or position.offset == len(log)
        return position


class Place:
    """A client's place in a room, as its SDK keeps it.

    Attributes:
        wanted: Whether the client subscribes again when it reconnects.
        state: ``leaving`` is from the unsubscribe to its answer: what comes meanwhile is dropped.
        at: The epoch, and the offset of the last message that it has; where there are no offsets, of the next one.
        begins: Without offsets: between which numbers of messages it subscribed.
        people: The clients of users in the room, as it was told of them; None before it asked.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.state: Literal["out", "in", "leaving"] = "out"
        self.at: tuple[str, int] | None = None
        self.begins: tuple[int, int] | None = None
        self.people: dict[str, str] | None = None


class Peer:
    """A client. It reads at once, answers pings, and checks all that it is told."""

    def __init__(self, world: World, number: int) -> None:
        self.number = number
        self.user = PEOPLE[number]
        self.protobuf = number % 2 == 1
        self.places = {name: Place() for name in NAMES}
        self.connected = False
        self.gone = True
        self.pings = 0
        self._world = world
        self._next = 1
        self._asked: dict[int, Request] = {}
        self._asked_at: dict[int, int] = {}
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"client {self.number} ({self.user or 'nobody'})"

    # What it does

    def connect(self, worker: int) -> None:
        """Opens a socket, connects, and subscribes to all that it was subscribed to, in one frame."""
        assert self.gone
        self.gone, self.connected = False, False
        self._asked = {}
        inbox = self._inbox = asyncio.Queue()
        inbox.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/live",
            "root_path": "",
            "query_string": f"name={self.user}".encode(),
            "headers": [(b"host", b"app")],
            "subprotocols": ["centrifuge-protobuf" if self.protobuf else "centrifuge-json"],
            "client": ("127.0.0.1", 1),
        }

        async def send(event: Any) -> None:
            if self._inbox is not inbox or self.gone:
                raise ConnectionResetError("the client is gone")
            try:
                self._take(event)
            except Exception as fault:  # for the server that would only be a client that is gone
                self._world.faults.append(fault)

        app: Any = self._world.apps[worker]
        self._serving = self._world.loop.create_task(app(scope, inbox.get, send))
        wanted = [name for name in NAMES if self.places[name].wanted]
        self.say(ConnectRequest(), *[self._subscription(name, recover=True) for name in wanted])

    def subscribe(self, name: str, *, recover: bool = False) -> None:
        self.places[name].wanted = True
        self.say(self._subscription(name, recover=recover))

    def _subscription(self, name: str, *, recover: bool) -> SubscribeRequest:
        at = self.places[name].at
        if at is None or name == "plain:a" or not recover:
            return SubscribeRequest(name)
        return SubscribeRequest(name, recover=True, epoch=at[0], offset=at[1])

    def unsubscribe(self, name: str) -> None:
        place = self.places[name]
        place.wanted, place.people = False, None
        if place.state == "in":
            place.state = "leaving"
        self.say(UnsubscribeRequest(name))

    def publish(self, name: str, number: int) -> None:
        self.say(PublishRequest(name, Payload(Kind.JSON, dumps(number))))

    def ask_who(self, name: str) -> None:
        self.say(PresenceRequest(name), PresenceStatsRequest(name))

    def ask_history(self, limit: int, since: int | None, *, reverse: bool) -> None:
        at = self.places["kept:a"].at
        position = None if since is None else StreamPosition(since, "" if at is None else at[0])
        self.say(HistoryRequest("kept:a", limit, position, reverse))

    def say(self, *requests: Request) -> None:
        """Sends commands in one frame."""
        commands = []
        for request in requests:
            number = 0 if isinstance(request, Pong) else self._next
            commands.append(Command(number, request))
            if number:
                self._asked[number] = request
                self._next += 1
                if isinstance(request, SubscribeRequest):
                    self._asked_at[number] = len(self._world.log(request.channel))
        event: dict[str, Any] = {"type": "websocket.receive"}
        if self.protobuf:
            event["bytes"] = b"".join(sized(in_protobuf(each).SerializeToString()) for each in commands)
        else:
            event["text"] = "\n".join(json.dumps(envelope_in_json(each)) for each in commands)
        self._inbox.put_nowait(event)

    def leave(self, *, politely: bool) -> None:
        """Ends its socket."""
        for name, place in self.places.items():
            if place.state == "in":
                self._world.lost(self, name)
        self.gone, self.connected = True, False
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000 if politely else 1006})
        for place in self.places.values():
            place.state, place.people = "out", None

    def check_settled(self) -> None:
        """Checks what holds once everything has come to rest."""
        if self.gone:
            assert self._serving is None or self._serving.done(), f"{self}: its handler goes on"
            if self._serving is not None:
                self._serving.result()
                self._serving = None
            return
        assert self.connected, f"{self}: connect was not answered"
        assert not self._asked, f"{self}: never answered: {self._asked}"
        for name, place in self.places.items():
            assert place.state == ("in" if place.wanted else "out"), f"{self}: is {place.state} of {name}"
            if place.state != "in":
                continue
            assert place.at is not None
            if place.begins is None:
                assert place.at[1] == len(self._world.log(name)), f"{self}: has {name} up to {place.at}"
            else:
                assert len(self._world.log(name)) <= place.begins[1], f"{self}: nothing of {name} came"

    # What it is told

    def _take(self, event: Any) -> None:
        if event["type"] != "websocket.send":
            assert event["type"] == "websocket.accept", f"{self}: {event}"
            assert event["subprotocol"] == ("centrifuge-protobuf" if self.protobuf else "centrifuge-json")
            return
        if self.protobuf:
            read = [sdk.Reply.FromString(each) for each in parts(event["bytes"])]
            replies = [unpacked(MessageToDict(each, preserving_proto_field_name=True)) for each in read]
        else:
            replies = [json.loads(line) for line in event["text"].split("\n")]
        for reply in replies:
            if not reply:
                self.pings += 1
                self.say(Pong())
            elif "push" in reply:
                self._pushed(**reply["push"])
            else:
                self._answered(reply)

    def _answered(self, reply: dict[str, Any]) -> None:
        number = reply["id"]
        request = self._asked.pop(number, None)
        assert request is not None, f"{self}: an answer to nothing: {reply}"
        assert self.connected or isinstance(request, ConnectRequest), f"{self}: {reply} before that to connect"
        if "error" in reply:
            # Of pipelined commands: left before it was let in, or not in yet, or not in any more.
            assert reply["error"]["code"] == 103, f"{self}: {request} was answered with {reply}"
            assert not isinstance(request, UnsubscribeRequest | ConnectRequest)
            assert not self._world.strict, f"{self}: {request} was answered with {reply}"
            return
        match request:
            case ConnectRequest():
                self.connected = True
                assert set(reply["connect"]["subs"]) == {"$everyone", *(["$user"] if self.user else [])}
            case SubscribeRequest():
                self._subscribed(number, request, reply["subscribe"])
            case UnsubscribeRequest():
                place = self.places[request.channel]
                if place.state == "leaving" and not self._later(number, request.channel, SubscribeRequest):
                    place.state = "out"
            case PresenceRequest():
                self._world.check_presence(self, request.channel, reply["presence"].get("presence", {}))
            case PresenceStatsRequest():
                self._world.check_stats(self, request.channel, reply["presence_stats"])
            case HistoryRequest():
                self._world.check_history(self, request, reply["history"])
            case _:
                assert reply["publish"] == {}

    def _later(self, number: int, name: str, kind: type[Any]) -> bool:
        """Whether it sent such a command for a room after another one."""
        return any(
            other > number and isinstance(each, kind) and each.channel == name for other, each in self._asked.items()
        )

    def _subscribed(self, number: int, request: SubscribeRequest, result: dict[str, Any]) -> None:
        name, world = request.channel, self._world
        place = self.places[name]
        place.people = None
        place.state = "leaving" if self._later(number, name, UnsubscribeRequest) else "in"
        world.entered(self, name)
        assert result.get("was_recovering", False) == request.recover
        if name == "plain:a":
            assert not {"offset", "epoch", "positioned", "recoverable"} & result.keys()
            place.at, place.begins = ("", 0), (self._asked_at[number] if world.is_one else 0, len(world.log(name)))
            return
        assert result["positioned"] is result["recoverable"] is True
        world.check_epoch(name, result["epoch"])
        offset = result.get("offset", 0)
        if request.recover and result.get("recovered"):
            assert offset == request.offset, f"{self}: {request} {result}"
        else:
            assert not result.get("recovered")
            replay, earliest = ROOMS[name].replay, self._asked_at[number] if world.is_one else 0
            assert max(0, earliest - replay) <= offset <= max(0, len(world.log(name)) - replay), f"{self}: {result}"
            # Between workers, live messages may arrive before the reply is made, which then holds them as well.
            most = replay if world.is_one else len(world.log(name)) - offset
            assert min(replay, earliest - offset) <= len(result.get("publications", [])) <= most, f"{self}: {result}"
        if request.recover and not result.get("recovered"):
            assert name == "short:a", f"{self}: {request} was not recovered: {result}"
            assert len(world.log(name)) - request.offset > SHORT, f"{self}: {request} was not recovered: {result}"
        place.at = (result["epoch"], offset)
        for each in result.get("publications", []):
            self._got(name, place, each)

    def _pushed(self, channel: str = "", **push: Any) -> None:
        place = self.places.get(channel)
        assert place is not None, f"{self}: nobody sent {channel} {push}"
        assert place.state != "out", f"{self}: {push} of {channel}, which it is not in"
        if place.state == "leaving":
            return
        if "pub" in push:
            self._got(channel, place, push["pub"])
            return
        if "unsubscribe" in push:
            assert push["unsubscribe"]["code"] == 2000, f"{self}: {push} of {channel}"
            assert (self.user, channel) == self._world.taken, f"{self}: {push} of {channel}"
            place.wanted, place.state, place.people = False, "out", None
            return
        assert ROOMS[channel].announce
        (kind,) = push
        info = push[kind]["info"]
        client, user = info["client"], info.get("user", "")
        if place.people is not None:
            before = place.people.pop(client, None)
            assert before == (None if kind == "join" else user), f"{self}: {push} of {channel}, twice"
            if kind == "join":
                place.people[client] = user

    def _got(self, name: str, place: Place, publication: dict[str, Any]) -> None:
        assert place.at is not None
        epoch, last = place.at
        log, number = self._world.log(name), publication["data"]
        if name == "plain:a":
            assert "offset" not in publication
            here = log.index(number)
            if place.begins is None:
                assert here == last, f"{self}: {number} of {name} is the {here}th, not the {last}th"
            else:
                low, high = place.begins
                assert low <= here <= high, f"{self}: {number} of {name} is the {here}th, and it began at {low}-{high}"
                place.begins = None
            place.at = ("", here + 1)
            return
        assert publication["offset"] == last + 1, f"{self}: from {last} to {publication} of {name}"
        assert log[last] == number, f"{self}: {publication} of {name} is {log[last]}"
        place.at = (epoch, last + 1)


class World:
    """An app on one worker, or on several that share a broker, and its clients.

    Attributes:
        faults: The checks of clients that failed.
        taken: The user whose right to a room is being taken back.
        strict: Whether everything had come to rest before the last command, so that its answer can only be one.
    """

    def __init__(self, workers: int = 1) -> None:
        self.loop = StillLoop()
        self.broker = Tapped()
        self.is_one = workers == 1
        brokers: list[Broker] = [self.broker]
        if workers > 1:
            hub = Hub(self.loop.time)
            hub.inner = self.broker
            brokers = list(hub.nodes_of(workers))
        made = [app_of(each) for each in brokers]
        self.apps = [app for app, _ in made]
        self.managers = [manager for _, manager in made]
        self.peers = [Peer(self, number) for number in range(len(PEOPLE))]
        self.strict = False
        self.faults: list[Exception] = []
        self.taken: tuple[str, str] | None = None
        self._epochs: dict[str, str] = {}
        self._lingering: dict[tuple[str, str], list[float]] = {}
        self._numbers = 0
        self._lifespans = [manager.lifespan(app) for app, manager in made]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hubbub.engine.prepare", _nothing)  # there is no server whose sockets could be tried
            for each in self._lifespans:
                self.loop.finish(each.__aenter__())

    # What happens

    def publish(self, worker: int, name: str) -> None:
        """The app publishes a message."""
        self.loop.create_task(self.managers[worker].broadcast(self.number(), room=name))

    def take_back(self, worker: int, user: str, name: str) -> None:
        """The app takes back a user's right to a room, while nothing else happens."""
        self.settle()
        there = any(peer.user == user for peer in self._in(name))
        self.taken = user, name
        assert self.loop.finish(self.managers[worker].unsubscribe(user, name)) == there
        self._lingering.pop((name, user), None)
        self.settle()
        assert not any(peer.user == user for peer in self._in(name))
        self.taken = None

    def number(self) -> int:
        """The next message."""
        self._numbers += 1
        return self._numbers

    def settle(self) -> None:
        """Lets all that was begun come to rest, and checks what then holds."""
        self.loop.settle()
        if self.faults:
            raise self.faults[0]
        for peer in self.peers:
            peer.check_settled()
        for name in NAMES:
            there = sorted(peer.number for peer in self._in(name))
            known = [each for manager in self.managers for each in manager.connections(room=name)]
            assert len(known) == len(there), f"{name} has {known}, and {there} are in it"
            for peer in self._in(name):
                people = peer.places[name].people
                if people is not None:
                    assert sorted(people.values()) == sorted(self._present(name)), (
                        f"{peer}: was told of {people} in {name}"
                    )
        assert sum(manager.stats().connections for manager in self.managers) == len(self._connected)
        for manager in self.managers:
            used = {name for name in manager._hubbub.memberships.rooms if name[0] != "$"}
            assert used <= {name for name in NAMES if self._in(name)}, f"left behind: {used}"

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    def ask(self, command: Callable[[], None]) -> None:
        """Lets everything come to rest before a command, and after it."""
        self.settle()
        self.strict = True
        command()
        self.settle()
        self.strict = False

    def close(self) -> None:
        """Ends it: nothing of its clients is left."""
        for peer in self.peers:
            if not peer.gone:
                peer.leave(politely=peer.number % 3 == 0)
        self.settle()
        self.pass_time(GRACE_S + 1)
        self.settle()
        for name in NAMES:
            assert not self.loop.finish(self.broker.connections(name)), f"somebody is left in {name}"
        for manager in self.managers:
            stats = manager.stats()
            assert (stats.connections, stats.users, stats.rooms, stats.queued_bytes) == (0, 0, 0, 0)
            assert not manager._hubbub.memberships.rooms
            assert not any(stats.errors.values())
        left = [task for task in asyncio.all_tasks(self.loop) if task.get_name() == "hubbub:endpoint"]
        assert not left
        for each in self._lifespans:
            self.loop.finish(each.__aexit__(None, None, None))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()

    # What is known

    def log(self, name: str) -> list[int]:
        """What was published into a room, in order."""
        return self.broker.logs[name]

    @property
    def _connected(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.connected]

    def _in(self, name: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.places[name].state == "in"]

    def entered(self, peer: Peer, name: str) -> None:
        """A client was let into a room, which ends the grace periods of its user there."""
        self._lingering.pop((name, peer.user), None)

    def lost(self, peer: Peer, name: str) -> None:
        """A client in a room is gone: its grace period begins."""
        if peer.user and name == "short:a":
            self._lingering.setdefault((name, peer.user), []).append(self.loop.time() + GRACE_S)

    def _present(self, name: str) -> list[str]:
        """The users in a room, and nobody as often as there are such clients."""
        present = [peer.user for peer in self._in(name)]
        lingering = [
            user for (room, user), ends in self._lingering.items() if room == name and max(ends) > self.loop.time()
        ]
        return sorted({*filter(None, present), *lingering}) + [""] * present.count("")

    def check_epoch(self, name: str, epoch: str) -> None:
        assert self._epochs.setdefault(name, epoch) == epoch != ""

    def check_presence(self, peer: Peer, name: str, presence: dict[str, Any]) -> None:
        if self.strict:
            assert all(each["client"] == client for client, each in presence.items())
            people = {client: each.get("user", "") for client, each in presence.items()}
            assert sorted(people.values()) == sorted(self._present(name)), f"{peer}: {presence} in {name}"
            if ROOMS[name].announce:
                before = peer.places[name].people
                assert before in (None, people), f"{peer}: {people} in {name}, and it was told of {before}"
                peer.places[name].people = people

    def check_stats(self, peer: Peer, name: str, stats: dict[str, Any]) -> None:
        if self.strict:
            expected = len(self._in(name)), len(set(self._present(name)))
            assert (stats.get("num_clients", 0), stats.get("num_users", 0)) == expected, f"{peer}: {stats} in {name}"

    def check_history(self, peer: Peer, request: HistoryRequest, result: dict[str, Any]) -> None:
        if not self.strict:
            return
        whole = list(enumerate(self.log("kept:a"), 1))
        assert result.get("offset", 0) == len(whole)
        since = request.since
        if request.reverse:
            whole = [each for each in reversed(whole) if since is None or each[0] < since.offset]
        elif since is not None:
            whole = [each for each in whole if each[0] > since.offset]
        expected = whole[: min(request.limit, 300)] if request.limit >= 0 else whole[:300]
        assert [(each["offset"], each["data"]) for each in result.get("publications", [])] == expected, (
            f"{peer}: {request}"
        )
