"""Catching up: pages that are shared, a replay at the pace of its socket, and what ends one early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from hubbub import Position, RoomOptions
from hubbub.brokers import Broker
from hubbub.close import CloseCode
from hubbub.codec import encode
from hubbub.connections.session import Manager, Session
from hubbub.envelope import Entry, Envelope, Page
from hubbub.errors import BrokerUnavailable
from hubbub.positions import Joined
from hubbub.rooms import catch_up as catch_up_module
from hubbub.rooms.catch_up import JoinReply, Recovery
from hubbub.rooms.room import CatchUp, Room
from hubbub.tasks import Tasks
from hubbub.timers import Timers
from tests.unit.rooms.subscriber import PLACED, reply_in, subscribing
from tests.unit.rooms.test_room import FakeWriter

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def at(offset: int, epoch: str = "now") -> Position:
    return Position(epoch, offset)


class Log:
    """A broker's history of one room: messages 1, 2, 3, ..., of which the first may be trimmed.

    It knows the epoch of every position but those in "lost".

    Attributes:
        epoch: The numbering.
        newest: The offset of the last message.
        trimmed: The offset of the last message that is not kept any more.
        page_messages: How many it gives at once, however many are asked for.
        unreadable: The offsets of messages that are kept, and that nobody can read.
        reads: The positions that were asked for; None for the newest.
        fails: What the next calls raise.
        going: Cleared, it does not answer.
    """

    def __init__(self) -> None:
        self.epoch = "now"
        self.newest = 3
        self.trimmed = 0
        self.page_messages = 2
        self.unreadable: set[int] = set()
        self.reads: list[Position | None] = []
        self.fails: list[Exception] = []
        self.going = asyncio.Event()
        self.going.set()

    async def history(self, channel: str, after: Position | None, limit: int) -> Page:
        assert channel == "lobby"
        assert after is None or limit >= self.page_messages
        self.reads.append(after)
        await self.going.wait()
        if self.fails:
            raise self.fails.pop(0)
        kept = range(self.trimmed + 1, self.newest + 1)
        if after is None:
            return self._page(kept[-limit:], whole=False)
        known = after.epoch != "lost"
        asked = range(after.offset + 1, self.newest + 1)[: self.page_messages]
        if known and self.trimmed <= after.offset <= self.newest and self.unreadable.isdisjoint(asked):
            return self._page(asked, whole=True)
        return self._page(kept[: self.page_messages], whole=False)

    def _page(self, offsets: range, *, whole: bool) -> Page:
        entries = [
            Entry(Envelope(encode(f"message {offset}"), position=at(offset, self.epoch)), THEN)
            for offset in offsets
            if offset not in self.unreadable
        ]
        return Page(entries, at(self.newest, self.epoch), whole)


class Socket:
    """What is below a session: notes what its client is told, in short."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.writer = FakeWriter(self._take)
        self.protocol = PLACED
        self.has_own_protocol = True
        self.sessions: list[Session] = []
        self.closed_with: list[CloseCode] = []

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "sync":
            self.told.append(("sync", message["offset"], message["recovered"]))
        elif kind == "renumbered":
            self.told.append((kind, message["epoch"], message["offset"]))
        elif kind is not None:
            self.told.append(kind)
        else:
            self.told.append(message["offset"])

    def close_soon(self, cause: CloseCode) -> None:
        self.closed_with.append(cause)


class World:
    """A room with a history, and members that come to it."""

    def __init__(self, replay: int = 0) -> None:
        self.log = Log()
        self.tasks, self.timers = Tasks(), Timers()
        self.gaps: list[str] = []
        self.timers.start(asyncio.get_running_loop())
        self.recovery = Recovery(cast(Broker, self.log), self.tasks, self.timers, self.gaps.append)
        self.room = Room("lobby", RoomOptions(history=10, replay=replay))
        self.room.head = at(3)

    def comes_back(self, since: Position) -> tuple[Session, Socket, CatchUp]:
        socket = Socket()
        session = Session(cast(Manager, self), cast(Any, socket), None, None)
        catch_up = self.room.catching_up[session.id] = CatchUp(session, since)
        return session, socket, catch_up

    async def join(self, since: Position | None, reply: JoinReply | None = None) -> tuple[Joined, Session, Socket]:
        assert self.room.head is not None
        session, socket, catch_up = self.comes_back(since or self.room.head)
        replay = await self.recovery.first(self.room, since)
        return self.recovery.begin(session, self.room, catch_up, replay, reply or reply_in("lobby")), session, socket

    def publish(self) -> None:
        self.log.newest += 1
        self.room.advance(at(self.log.newest))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - it takes some passes
                await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is asked again in the next pass of the loop."""
    monkeypatch.setattr(catch_up_module, "_RETRY_S", 0.0)


def run(test: Callable[[World], Awaitable[None]], replay: int = 0) -> None:
    async def main() -> None:
        world = World(replay)
        await test(world)
        await world.tasks.close(1.0)
        world.timers.stop()

    asyncio.run(main())


# A replay


@pytest.mark.parametrize(
    ("offset", "told"),
    [(3, []), (2, [3]), (1, [2, 3])],
)
def test_what_fits_in_a_page_is_written_with_the_answer_and_the_member_is_live(offset: int, told: list[int]) -> None:
    async def test(world: World) -> None:
        joined, session, socket = await world.join(at(offset))
        assert joined == Joined(at(3), recovered=True)
        assert socket.told == [("sync", 3, True), *told]
        assert world.room.members == {session.id: session}

    run(test)


def test_what_does_not_fit_follows_page_by_page() -> None:
    async def test(world: World) -> None:
        world.log.newest = 5
        world.room.head = at(5)
        joined, session, socket = await world.join(at(0))
        assert joined.position == at(5)
        assert (socket.told[1:], session.id in world.room.members) == ([1, 2], False)
        await world.until(lambda: session.id in world.room.members)
        assert socket.told[1:] == [1, 2, 3, 4, 5]
        assert world.log.reads == [at(0), at(2), at(4)]

    run(test)


def test_a_socket_that_takes_nothing_is_given_the_rest_once_it_does() -> None:
    async def test(world: World) -> None:
        world.log.page_messages = 10
        session, socket, catch_up = world.comes_back(at(0))
        socket.writer.be_slow(True)
        replay = await world.recovery.read(world.room, at(0))
        world.recovery.begin(session, world.room, catch_up, replay, reply_in("lobby"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert socket.told == [("sync", 3, True)]
        socket.writer.be_slow(False)
        await world.until(lambda: session.id in world.room.members)
        assert socket.told[1:] == [1, 2, 3]

    run(test)


def test_a_member_whose_position_is_out_of_reach_is_told_and_is_live_at_once() -> None:
    async def test(world: World) -> None:
        world.log.trimmed = 2
        joined, session, socket = await world.join(at(1))
        assert joined == Joined(at(3), recovered=False)
        assert socket.told == [("sync", 3, False)]
        assert session.id in world.room.members

    run(test)


def test_a_history_that_is_trimmed_under_the_replay_of_a_raw_member_is_reported() -> None:
    async def test(world: World) -> None:
        world.log.newest = 5
        world.room.head = at(5)
        session, socket, catch_up = world.comes_back(at(0))
        replay = await world.recovery.read(world.room, at(0))
        world.recovery.begin(session, world.room, catch_up, replay, None)
        world.log.trimmed = 4
        assert world.gaps == []
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == [1, 2, 5]
        assert world.gaps == ["lobby"]

    run(test)


@pytest.mark.parametrize(
    ("epoch", "unreadable", "told"),
    [("now", set(), [1, 2, 5, 6, 7, 8, 9]), ("now", {6}, [1, 2, 5]), ("lost", set(), [1, 2])],
    ids=["trimmed", "unreadable too", "lost"],
)
def test_a_raw_member_behind_a_trimmed_history_receives_what_is_still_kept_unless_it_may_come_twice(
    epoch: str, unreadable: set[int], told: list[int]
) -> None:
    async def test(world: World) -> None:
        world.log.newest = 9
        world.room.head = at(9)
        session, socket, catch_up = world.comes_back(at(0))
        replay = await world.recovery.read(world.room, at(0))
        world.recovery.begin(session, world.room, catch_up, replay, None)
        world.log.trimmed, world.log.unreadable = 4, unreadable
        catch_up.cursor = at(2, epoch)
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == told
        assert world.gaps == ["lobby"] * (2 if unreadable else 1)

    run(test)


def test_a_client_that_recovers_into_another_epoch_is_told_that_one() -> None:
    async def test(world: World) -> None:
        world.log.epoch = "new"
        world.room.head = at(3, "new")
        joined, session, socket = await world.join(at(2, "old"))
        assert joined == Joined(at(3, "new"), recovered=True)
        assert socket.told == [("sync", 3, True), 3]
        assert session.id in world.room.members

    run(test)


@pytest.mark.parametrize("subscribes_again", [True, False])
def test_a_client_is_told_of_another_epoch_before_its_messages(subscribes_again: bool) -> None:
    """A client that subscribed itself subscribes again; one that the app joined goes on from the new position."""

    async def test(world: World) -> None:
        world.log.newest = 5
        world.room.head = at(5)
        session, socket, catch_up = world.comes_back(at(0))
        subscribing(session, (lambda: world.room.remove(session)) if subscribes_again else None)
        replay = await world.recovery.read(world.room, at(0))
        world.recovery.begin(session, world.room, catch_up, replay, None)
        world.log.epoch = "new"
        world.room.head = at(5, "new")
        await world.until(lambda: len(world.tasks) == 0)
        assert socket.told == ["in", 1, 2, *([] if subscribes_again else [("renumbered", "new", 2), 3, 4, 5])]
        assert (session.id in world.room.members) is not subscribes_again
        assert world.gaps == []

    run(test)


def test_a_message_that_comes_live_meanwhile_is_read_and_not_missed() -> None:
    async def test(world: World) -> None:
        session, socket, catch_up = world.comes_back(at(2))
        replay = await world.recovery.read(world.room, at(2))
        world.log.newest = 4
        world.room.advance(at(4))
        world.recovery.begin(session, world.room, catch_up, replay, reply_in("lobby"))
        assert session.id not in world.room.members
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == [("sync", 3, True), 3, 4]

    run(test)


# A protocol whose answer to a join contains the missed messages


class Replies:
    """Makes replies, and notes which messages each contains."""

    def __init__(self) -> None:
        self.contained: list[tuple[Joined, list[Any]]] = []

    def __call__(self, joined: Joined, entries: Sequence[Entry]) -> bytes:
        self.contained.append((joined, [entry.recorded().message for entry in entries]))
        return b""


@pytest.mark.parametrize(
    ("page_messages", "reply_bytes", "contained", "followed"),
    [
        (2, 1_000, 2, [3]),
        (10, 1_000, 3, []),
        (10, 2 * len("message 1"), 2, [3]),
        (10, 2 * len("message 1") - 1, 1, [2, 3]),
        (10, 0, 1, [2, 3]),  # at least one, so that the client gets on
    ],
)
def test_a_reply_contains_as_many_missed_messages_as_fit_and_the_others_follow(
    page_messages: int, reply_bytes: int, contained: int, followed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catch_up_module, "_REPLY_BYTES", reply_bytes)

    async def test(world: World) -> None:
        world.log.page_messages = page_messages
        session, socket, catch_up = world.comes_back(at(0))
        replies = Replies()
        replay = await world.recovery.read(world.room, at(0))
        joined = world.recovery.begin(session, world.room, catch_up, replay, replies)
        await world.until(lambda: session.id in world.room.members)
        assert joined == Joined(at(3), recovered=True)
        assert replies.contained == [(joined, ["message 1", "message 2", "message 3"][:contained])]
        assert socket.told == followed

    run(test)


def test_a_reply_to_a_member_whose_position_is_out_of_reach_contains_nothing() -> None:
    async def test(world: World) -> None:
        world.log.trimmed, world.log.newest = 2, 5  # of which a page holds only two
        world.room.head = at(5)
        session, socket, catch_up = world.comes_back(at(1))
        replies = Replies()
        replay = await world.recovery.read(world.room, at(1))
        joined = world.recovery.begin(session, world.room, catch_up, replay, replies)
        assert replies.contained == [(Joined(at(5), recovered=False), [])] == [(joined, [])]
        assert session.id in world.room.members
        assert socket.told == []

    run(test)


def test_a_subscriber_whose_history_is_trimmed_under_a_replay_is_told_that_its_subscription_ends() -> None:
    async def test(world: World) -> None:
        world.log.newest = 5
        world.room.head = at(5)
        session, socket, catch_up = world.comes_back(at(0))
        listener = subscribing(session)
        replay = await world.recovery.read(world.room, at(0))
        world.recovery.begin(session, world.room, catch_up, replay, Replies())
        world.log.trimmed = 4
        await world.until(lambda: bool(listener.heard))
        assert listener.heard == [("lost its place", "lobby")]
        assert socket.told == []
        assert world.gaps == []
        world.room.remove(session)

    run(test)


@pytest.mark.parametrize(
    ("since", "reached"), [(at(2), at(2)), (at(2, "former"), at(2)), (at(0), at(3))], ids=["same", "renamed", "trimmed"]
)
def test_a_client_that_the_app_joins_is_told_the_position_after_which_messages_follow(
    since: Position, reached: Position
) -> None:
    async def test(world: World) -> None:
        world.log.trimmed = 1
        session, _, catch_up = world.comes_back(since)
        listener = subscribing(session)
        replay = await world.recovery.read(world.room, since)
        joined = world.recovery.begin(session, world.room, catch_up, replay, None)
        assert joined.position == at(3)
        assert listener.places == [reached]
        world.room.remove(session)

    run(test)


# Members that join anew, in a room that replays its newest messages


@pytest.mark.parametrize(
    ("replay", "trimmed", "start", "told"),
    [
        (1, 0, 2, [3]),
        (2, 0, 1, [2, 3]),
        (10, 0, 0, [1, 2, 3]),
        (2, 1, 1, [2, 3]),
        (10, 1, 1, [2, 3]),
        (2, 2, 2, [3]),
        (10, 3, 3, []),
    ],
)
def test_a_newcomer_begins_with_the_newest_messages_that_are_kept(
    replay: int, trimmed: int, start: int, told: list[int]
) -> None:
    async def test(world: World) -> None:
        world.log.trimmed, world.log.page_messages = trimmed, 10
        joined, session, socket = await world.join(None)
        assert joined == Joined(at(start), recovered=False)
        assert socket.told == [("sync", start, False), *told]
        assert world.room.members == {session.id: session}

    run(test, replay)


def test_more_than_a_page_for_a_newcomer_follows_with_what_is_live() -> None:
    async def test(world: World) -> None:
        world.log.newest = 7
        world.room.head = at(7)
        _, session, socket = await world.join(None)
        assert socket.told == [("sync", 2, False), 3, 4]
        world.publish()
        await world.until(lambda: session.id in world.room.members)
        assert socket.told[1:] == [3, 4, 5, 6, 7, 8]
        assert world.log.reads == [at(2), at(4), at(6)]

    run(test, replay=5)


def test_a_reply_to_a_newcomer_contains_the_messages_that_follow_its_position() -> None:
    async def test(world: World) -> None:
        world.log.newest = 4
        world.room.head = at(4)
        replies = Replies()
        joined, session, socket = await world.join(None, replies)
        assert replies.contained == [(Joined(at(1), recovered=False), ["message 2", "message 3"])]
        assert joined == replies.contained[0][0]
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == [4]

    run(test, replay=3)


def test_a_reply_to_a_client_that_is_slow_contains_nothing_and_the_messages_follow() -> None:
    async def test(world: World) -> None:
        replies = Replies()
        session, socket, catch_up = world.comes_back(at(3))
        socket.writer.be_slow(True)
        newest = await world.recovery.first(world.room, None)
        world.recovery.begin(session, world.room, catch_up, newest, replies)
        assert replies.contained == [(Joined(at(1), recovered=False), [])]
        socket.writer.be_slow(False)
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == [2, 3]

    run(test, replay=2)


def test_what_the_broker_has_not_delivered_yet_reaches_a_newcomer_once() -> None:
    async def test(world: World) -> None:
        world.log.newest, world.log.page_messages = 5, 10
        _, session, socket = await world.join(None)
        for offset in (4, 5):
            world.room.advance(at(offset))
            assert session.id not in world.room.members
        world.room.advance(at(6))
        assert session.id in world.room.members
        assert socket.told == [("sync", 1, False), 2, 3, 4, 5]

    run(test, replay=2)


def test_a_client_that_can_not_recover_begins_as_a_newcomer() -> None:
    async def test(world: World) -> None:
        world.log.newest, world.log.trimmed = 7, 3
        world.room.head = at(7)
        _, _, socket = await world.join(at(1))
        assert socket.told == [("sync", 5, False), 6, 7]
        _, _, socket = await world.join(at(1, "lost"))
        assert socket.told == [("sync", 5, False), 6, 7]

    run(test, replay=2)


def test_a_client_that_recovers_receives_what_it_missed_and_no_replay() -> None:
    async def test(world: World) -> None:
        for offset, told in ((3, []), (2, [3])):
            joined, _, socket = await world.join(at(offset))
            assert joined == Joined(at(3), recovered=True)
            assert socket.told == [("sync", 3, True), *told]

    run(test, replay=3)


def test_a_newcomer_begins_after_a_message_that_can_not_be_read() -> None:
    async def test(world: World) -> None:
        world.log.newest, world.log.page_messages = 9, 4
        world.room.head = at(9)
        world.log.unreadable = {7}
        _, session, socket = await world.join(None)
        assert socket.told == [("sync", 7, False), 8, 9]
        assert session.id in world.room.members

    run(test, replay=4)


def test_a_client_before_a_message_that_can_not_be_read_goes_live_behind_it() -> None:
    """A replay would lead to the same message again, and the client would be told to start over each time."""

    async def test(world: World) -> None:
        world.log.newest, world.log.page_messages = 9, 4
        world.room.head = at(9)
        world.log.unreadable = {7}
        _, session, socket = await world.join(at(6))
        assert socket.told == [("sync", 9, False)]
        assert session.id in world.room.members

    run(test, replay=8)


def test_a_newcomer_that_meets_a_message_that_can_not_be_read_is_told() -> None:
    async def test(world: World) -> None:
        world.log.newest, world.log.page_messages = 9, 4
        world.room.head = at(9)
        world.log.unreadable = {7}
        _, session, socket = await world.join(None)
        await world.until(lambda: session.id in world.room.members)
        assert socket.told == [("sync", 1, False), 2, 3, 4, 5]
        assert world.gaps == ["lobby"]

    run(test, replay=8)


@pytest.mark.parametrize("replay", [2, 5])
def test_a_newcomer_to_a_room_that_was_lost_a_moment_ago_begins_in_the_new_numbering(replay: int) -> None:
    async def test(world: World) -> None:
        world.room.head = at(30, "lost")
        _, session, socket = await world.join(None)
        assert socket.told[0] == ("sync", max(0, 3 - replay), False)
        assert socket.told[1:] == [2, 3] if replay == 2 else [1, 2, 3]
        assert session.id not in world.room.members
        world.room.change_epoch(at(3))
        world.room.advance(at(4))
        assert session.id in world.room.members

    run(test, replay)


def test_a_newcomer_to_a_room_that_the_broker_forgot_is_live_at_once() -> None:
    async def test(world: World) -> None:
        async def forgotten(*_: object) -> Page:
            return Page([], None, whole=False)

        world.log.history = forgotten  # type: ignore[assignment]  # a broker that has lost the room
        _, session, socket = await world.join(None)
        assert socket.told == [("sync", 3, False)]
        assert session.id in world.room.members

    run(test, replay=2)


def test_newcomers_share_a_read_and_its_frames_until_something_is_published() -> None:
    async def test(world: World) -> None:
        first = await world.recovery.first(world.room, None)
        assert await world.recovery.first(world.room, None) is first
        assert world.log.reads == [at(1)]
        world.publish()
        assert await world.recovery.first(world.room, None) is not first
        assert world.log.reads == [at(1), at(2)]
        world.recovery.forget(world.room)
        await world.recovery.first(world.room, None)
        assert len(world.log.reads) == 3

    run(test, replay=2)


# What ends it early


def test_a_broker_that_is_away_is_asked_again() -> None:
    async def test(world: World) -> None:
        session, socket, catch_up = world.comes_back(at(2))
        world.log.fails = [BrokerUnavailable("away"), BrokerUnavailable("away")]
        world.recovery.continue_catch_up(session, world.room, catch_up)
        await world.until(lambda: session.id in world.room.members)
        assert (len(world.log.reads), socket.told) == (3, [3])

    run(test)


def test_a_member_that_leaves_during_a_read_is_told_nothing_more() -> None:
    async def test(world: World) -> None:
        session, socket, catch_up = world.comes_back(at(2))
        world.log.going.clear()
        world.recovery.continue_catch_up(session, world.room, catch_up)
        await world.until(lambda: world.log.reads != [])
        world.room.remove(session)
        world.log.going.set()
        await world.tasks.close(5.0)
        assert (socket.told, socket.closed_with) == ([], [])

    run(test)


@pytest.mark.parametrize("there", [True, False])
def test_a_replay_that_fails_closes_its_socket_if_that_is_still_there(
    there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(world: World) -> None:
        session, socket, catch_up = world.comes_back(at(2))
        world.log.going.clear()
        world.log.fails = [ValueError("a fault of ours")]
        world.recovery.continue_catch_up(session, world.room, catch_up)
        await world.until(lambda: world.log.reads != [])
        if not there:
            world.room.remove(session)
        world.log.going.set()
        await world.tasks.close(5.0)
        assert socket.closed_with == ([CloseCode.INTERNAL_ERROR] if there else [])
        assert "a fault of ours" in caplog.text

    run(test)


# Pages that are shared


def test_those_who_come_back_from_one_position_share_a_read_until_something_is_published() -> None:
    async def test(world: World) -> None:
        read, room = world.recovery.read, world.room
        first = await read(room, at(1))
        assert await read(room, at(1)) is first
        assert await read(room, at(2)) is not first
        room.head = at(4)
        assert await read(room, at(1)) is not first
        assert world.log.reads == [at(1), at(2), at(1)]

    run(test)


def test_pages_that_are_forgotten_are_read_again() -> None:
    async def test(world: World) -> None:
        read, room, other = world.recovery.read, world.room, Room("lobby", RoomOptions())
        other.head = room.head
        await read(room, at(1))
        await read(other, at(1))
        world.recovery.forget(room)
        await read(other, at(1))
        assert len(world.log.reads) == 2
        await read(room, at(1))
        assert len(world.log.reads) == 3
        world.recovery.forget()
        await read(other, at(1))
        assert len(world.log.reads) == 4

    run(test)


def test_pages_of_only_so_many_positions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up_module, "_MAX_PAGES", 2)

    async def test(world: World) -> None:
        for _ in range(2):
            for offset in range(3):
                await world.recovery.read(world.room, at(offset))
        assert world.log.reads == [at(0), at(1), at(2), at(2)]

    run(test)


def test_a_read_that_fails_is_not_remembered() -> None:
    async def test(world: World) -> None:
        world.log.fails = [BrokerUnavailable("away")]
        with pytest.raises(BrokerUnavailable):
            await world.recovery.read(world.room, at(1))
        assert (await world.recovery.read(world.room, at(1))).page.whole

    run(test)
