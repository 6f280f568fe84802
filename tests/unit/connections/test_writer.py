"""A writer: the order of what goes to one socket, its bound, and its end. What the socket does is a fake's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, cast

import pytest

from hubbub.connections.outbox import DIRECT
from hubbub.connections.transports import Event, Transport
from hubbub.connections.writer import Writer
from hubbub.options import Overflow
from hubbub.tasks import Tasks

MAX_BYTES = 1000


class Lane:
    """A room, as far as a writer sees it."""

    def __init__(self, label: str, overflow: Overflow) -> None:
        self.label = label
        self.overflow = overflow


OLDEST, NEWEST, LATEST = Lane("oldest", "drop_oldest"), Lane("newest", "drop_newest"), Lane("latest", "latest")


class Socket(Transport):
    """Notes what is written to it: frames as bytes, a send of the handler as its text.

    Attributes:
        taking: Cleared, the socket takes nothing and is not ready.
        writes, sends: Cleared, one that is under way waits here, as in a server that has buffers of its own.
        fails: What a write or send raises. What is "bad" raises a ValueError anyway.
        waiting: How many bytes its buffer holds.
        on_send: Called when a send of the handler comes.
    """

    name = "fake"

    def __init__(self) -> None:
        self.got: list[bytes | str] = []
        self.held = False
        self.taking = asyncio.Event()
        self.taking.set()
        self.writes, self.sends = asyncio.Event(), asyncio.Event()
        self.writes.set()
        self.sends.set()
        self.fails: Exception | None = None
        self.waiting = 0
        self.on_send: Callable[[], None] = lambda: None
        self.gone = False

    def hold(self, held: bool) -> None:
        self.held = held

    def set_high_water(self, max_bytes: int) -> None:
        pass

    def watch(self, admit: Callable[[], bool]) -> None:
        raise NotImplementedError

    def limit_message_size(self, max_bytes: int | None) -> None:
        raise NotImplementedError

    def maintain(self) -> None:
        raise NotImplementedError

    def stop_reading(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> bool:
        if self.held or self.gone or not self.taking.is_set():
            return False
        self.got.append(data)
        return True

    async def ready(self) -> None:
        await self.taking.wait()

    async def write_soon(self, data: bytes) -> None:
        await self._take(data, self.writes)

    async def send(self, event: Event) -> None:
        self.on_send()
        await self._take(event["text"], self.sends)

    async def _take(self, what: bytes | str, gate: asyncio.Event) -> None:
        await self.taking.wait()
        await gate.wait()
        if what == "bad":
            raise ValueError("bad")
        if self.fails is not None:
            raise self.fails
        self.got.append(what)

    @property
    def buffered(self) -> int:
        return self.waiting

    @property
    def closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True


class Host:
    """Whose socket it is: notes what it hears."""

    max_outbox_bytes = MAX_BYTES

    def __init__(self) -> None:
        self.tasks = Tasks()
        self.losses = 0
        self.drops = 0
        self.caught_up: list[int] = []
        self.overflows: list[int] = []

    def on_lost(self) -> None:
        self.losses += 1

    def on_overflow(self, queued_bytes: int) -> None:
        self.overflows.append(queued_bytes)

    def on_dropped(self, frames: int) -> None:
        self.drops += frames

    def on_caught_up(self, dropped: int) -> None:
        self.caught_up.append(dropped)


class Place:
    """A writer between a host and a socket."""

    def __init__(self) -> None:
        self.host, self.socket = Host(), Socket()
        self.writer = Writer(self.host, self.socket)

    @property
    def got(self) -> list[bytes | str]:
        return self.socket.got

    async def send(self, text: str) -> asyncio.Task[None]:
        """Begins a send of the handler."""
        event: MutableMapping[str, Any] = {"type": "websocket.send", "text": text}
        sending = asyncio.create_task(self.writer.send(event))
        await turns()
        return sending

    async def emptied(self) -> None:
        async with asyncio.timeout(30):
            await self.writer.emptied()


async def turns(count: int = 5) -> None:
    """Lets what is under way come as far as it can, or only so many passes of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Callable[[Place], Awaitable[None]]) -> None:
    """Runs a test, and looks that no task is left."""

    async def running() -> None:
        place = Place()
        async with asyncio.timeout(30):
            await main(place)
        await turns()
        assert len(place.host.tasks) == 0

    asyncio.run(running())


# Order


def test_while_the_socket_takes_what_is_written_nothing_waits() -> None:
    async def main(place: Place) -> None:
        for data in (b"1", b"2"):
            assert place.writer.write(data)
        assert place.got == [b"1", b"2"]
        assert (place.writer.queued_bytes, len(place.host.tasks)) == (0, 0)
        await place.emptied()

    run(main)


class EagerTasks(Tasks):
    """Runs what it is given at once, as `asyncio.eager_task_factory` does, where that does not wait for anything."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        with pytest.raises(StopIteration):
            work.send(None)
        ended: Any = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        return cast("asyncio.Task[None]", ended)


def test_a_drain_that_ends_at_once_leaves_nothing_held() -> None:
    async def main(place: Place) -> None:
        place.host.tasks = EagerTasks()
        for data in (b"1", b"2"):
            place.socket.held = True  # on the fallback a write is always refused, and the pump has nothing to wait for
            assert place.writer.write(data)
        assert place.got == [b"1", b"2"]
        assert not place.socket.held
        await place.emptied()

    run(main)


def test_a_drain_that_is_given_up_before_it_began_is_over() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        place.writer.stop()
        async with asyncio.timeout(30):
            await place.emptied()
        assert place.got == []

    run(main)


def test_nothing_overtakes_what_waits() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        assert place.writer.write(b"1")
        assert place.writer.write(b"2")
        place.socket.taking.set()
        assert not place.socket.write(b"a fan-out writes to the transport"), "it is not held"
        assert place.writer.write(b"3")
        assert place.writer.queued_bytes == 3
        await place.emptied()
        assert place.writer.queued_bytes == 0
        assert place.writer.write(b"4")
        assert place.got == [b"123", b"4"]

    run(main)


def test_a_send_of_the_handler_goes_behind_what_waits_and_before_what_comes() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        sending = await place.send("two")
        place.writer.write(b"3")
        await turns()
        assert not sending.done(), "the handler was not held back"
        place.socket.taking.set()
        await sending
        await place.emptied()
        assert place.got == [b"1", "two", b"3"]

    run(main)


def test_what_comes_while_a_send_is_under_way_goes_behind_it() -> None:
    async def main(place: Place) -> None:
        place.socket.sends.clear()
        first = await place.send("one")
        assert not place.socket.write(b"a fan-out writes to the transport"), "it is not held"
        assert place.writer.write(b"2")
        second = await place.send("three")
        assert place.got == []
        draining = asyncio.create_task(place.emptied())
        await turns()
        place.socket.sends.set()
        await first
        assert not draining.done(), "a close would go before what waits"
        await draining
        assert second.done()
        assert place.got == ["one", b"2", "three"]
        assert place.writer.write(b"4")
        assert place.got[-1] == b"4"

    run(main)


def test_a_send_that_nobody_waits_for_any_more_is_left_out() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        sending = await place.send("two")
        place.writer.write(b"3")
        sending.cancel()
        await turns()
        place.socket.taking.set()
        await place.emptied()
        assert place.got == [b"1", b"3"]

    run(main)


def test_a_send_that_the_server_refuses_fails_alone() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        bad = await place.send("bad")
        worse = await place.send("bad")
        place.writer.write(b"3")
        good = await place.send("good")
        place.socket.taking.set()
        for sending in (bad, worse):
            with pytest.raises(ValueError, match="bad"):
                await sending
        await good
        await place.emptied()
        assert place.got == [b"3", "good"]
        assert place.host.losses == 0

    run(main)


def test_who_waits_until_nothing_waits_does_not_go_on_when_something_came_meanwhile() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        draining = asyncio.create_task(place.emptied())
        await turns()
        place.socket.taking.set()
        while place.writer.queued_bytes:
            await turns(1)
        place.socket.taking.clear()
        place.writer.write(b"2")
        await turns()
        assert not draining.done()
        place.socket.taking.set()
        await draining
        assert place.got == [b"1", b"2"]

    run(main)


# The bound


def test_what_may_not_be_lost_and_does_not_fit_is_told_and_not_queued() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        assert place.writer.write(bytes(MAX_BYTES))
        assert not place.writer.write(b"1")
        assert place.host.overflows == [MAX_BYTES]
        place.socket.taking.set()
        await place.emptied()
        assert place.got == [bytes(MAX_BYTES)]

    run(main)


def test_what_is_dropped_is_counted_and_summed_up_once_the_rest_is_out() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        for data in (b"a", b"b", b"c"):
            assert place.writer.write(data * 300, OLDEST)
        assert place.writer.write(b"d" * 900, OLDEST), "three make room for it"
        assert place.host.drops == 3
        assert not place.writer.write(b"e" * 300, NEWEST)
        assert place.host.drops == 4
        assert place.writer.write(b"f")
        assert place.host.caught_up == []
        place.socket.taking.set()
        await place.emptied()
        assert place.got == [b"d" * 900 + b"f"]
        assert (place.host.drops, place.host.caught_up) == (4, [4])
        assert place.host.overflows == []
        place.socket.taking.clear()
        assert place.writer.write(b"g", OLDEST)
        place.socket.taking.set()
        await place.emptied()
        assert place.host.caught_up == [4], "nothing was dropped since"

    run(main)


def test_what_waits_may_be_replaced_until_the_socket_takes_it() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        for data in (b"1", b"2", b"3"):
            assert place.writer.write(data, LATEST, "key")
            await turns()
        place.socket.taking.set()
        await place.emptied()
        assert place.got[0] == b"3"

    run(main)


def test_what_the_pump_is_writing_counts_until_it_is_written() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.socket.writes.clear()
        place.writer.write(bytes(600))
        place.socket.taking.set()
        await turns()
        assert place.writer.queued_bytes == 600
        assert place.writer.write(bytes(400))
        assert place.writer.queued_bytes == 1000
        assert not place.writer.write(b"1")
        place.socket.taking.clear()
        place.socket.writes.set()
        await turns()
        assert place.got == [bytes(600)]
        assert place.writer.queued_bytes == 400
        assert place.writer.write(bytes(600))
        place.socket.taking.set()
        await place.emptied()
        assert place.writer.queued_bytes == 0

    run(main)


def test_what_the_pump_is_writing_does_not_count_once_it_failed() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(bytes(600))
        place.socket.fails = OSError("the peer is gone")
        place.socket.taking.set()
        await place.emptied()
        assert place.writer.queued_bytes == 0

    run(main)


def test_what_the_transport_holds_counts() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.socket.waiting = 300
        assert place.writer.write(bytes(700))
        assert not place.writer.write(b"1")
        place.socket.taking.set()
        await place.emptied()

    run(main)


@pytest.mark.parametrize("in_its_turn", [False, True], ids=["at once", "in its turn"])
def test_what_the_handler_sends_does_not_count_until_it_is_out(in_its_turn: bool) -> None:
    """It may be larger than the outbox, as Starlette lets it: the handler is held back instead."""

    async def main(place: Place) -> None:
        def fill() -> None:
            place.socket.waiting = 5000
            place.socket.taking.clear()

        place.socket.on_send = fill
        if in_its_turn:
            place.socket.taking.clear()
            place.writer.write(b"1")
        sending = await place.send("x" * 5000)
        if in_its_turn:
            place.socket.taking.set()
            await turns()
        assert place.socket.waiting == 5000
        assert place.writer.write(bytes(900))
        place.socket.waiting = 0
        place.socket.taking.set()
        await sending
        await place.emptied()
        place.socket.taking.clear()
        place.socket.waiting = 300
        assert not place.writer.write(bytes(900)), "what the handler has sent is out"

    run(main)


def test_it_is_congested_by_what_waits_here_and_in_the_transport() -> None:
    async def main(place: Place) -> None:
        place.socket.waiting = MAX_BYTES // 4
        assert not place.writer.congested
        place.socket.taking.clear()
        place.writer.write(b"1")
        assert place.writer.congested
        assert place.writer.waiting_bytes == MAX_BYTES // 4 + 1
        place.socket.waiting = 0
        assert not place.writer.congested
        place.socket.taking.set()
        await place.emptied()

    run(main)


@pytest.mark.parametrize("where", ["in the outbox", "being written by the pump", "in the transport"])
def test_who_waits_for_an_end_of_the_congestion_waits_for_all_that_waits(where: str) -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        if where != "in the transport":
            place.writer.write(b"1")
        if where == "being written by the pump":
            place.socket.writes.clear()
            place.socket.taking.set()
        waiting = asyncio.create_task(place.writer.uncongested())
        await turns()
        assert not waiting.done()
        place.socket.taking.set()
        place.socket.writes.set()
        await waiting
        assert place.got == [b"1"] * (where != "in the transport")

    run(main)


# The end


@pytest.mark.parametrize("waiting", [False, True], ids=["idle", "with something waiting"])
def test_after_the_end_what_waits_goes_out_and_nothing_else(waiting: bool) -> None:
    async def main(place: Place) -> None:
        if waiting:
            place.socket.taking.clear()
            place.writer.write(b"1")
        place.writer.end(discard=False)
        for _ in range(2):
            assert not place.writer.write(b"after")
            assert not place.socket.write(b"after"), "it is not held: a fan-out would write behind the Close frame"
            place.socket.taking.set()
            await place.emptied()
        assert place.got == [b"1"] * waiting

    run(main)


def test_a_send_that_is_under_way_at_the_end_does_not_let_anything_follow() -> None:
    async def main(place: Place) -> None:
        place.socket.sends.clear()
        sending = await place.send("one")
        place.writer.end(discard=False)
        place.socket.sends.set()
        await sending
        assert not place.writer.write(b"after")
        assert not place.socket.write(b"after")
        assert place.got == ["one"]

    run(main)


def test_an_end_that_discards_drops_what_waits_and_fails_the_sends_among_it() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        sending = await place.send("two")
        place.writer.end(discard=True)
        with pytest.raises(ConnectionResetError):
            await sending
        place.socket.taking.set()
        await place.emptied()
        assert place.got == []

    run(main)


def test_a_writer_that_is_abandoned_waits_for_nothing() -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        place.writer.write(b"1")
        sending = await place.send("two")
        place.writer.stop()
        await place.emptied()
        with pytest.raises(ConnectionResetError):
            await sending
        assert place.got == []

    run(main)


def test_a_socket_that_is_found_gone_at_a_write_is_told_of() -> None:
    async def main(place: Place) -> None:
        place.socket.gone = True
        assert not place.writer.write(b"1")
        assert place.host.losses == 1
        assert place.writer.queued_bytes == 0

    run(main)


@pytest.mark.parametrize("first", ["frame", "send"])
def test_a_socket_that_is_lost_under_a_drain_fails_the_sends_that_wait(first: str) -> None:
    async def main(place: Place) -> None:
        place.socket.taking.clear()
        if first == "frame":
            place.writer.write(b"1")
        sends = [await place.send("two"), await place.send("three")]
        if first == "frame":
            place.writer.write(b"4")
        place.socket.fails = OSError("the peer is gone")
        place.socket.taking.set()
        await place.emptied()
        for sending in sends:
            with pytest.raises(OSError, match="is gone"):
                await sending
        assert (place.got, place.host.losses, place.writer.queued_bytes) == ([], 1, 0)

    run(main)


# Who does not read


def test_it_says_for_how_long_nothing_of_what_waits_has_moved() -> None:
    async def main(place: Place) -> None:
        writer, socket = place.writer, place.socket
        assert writer.stalled_for(10**9) == 0.0
        socket.taking.clear()
        socket.waiting = 50
        writer.write(b"1", DIRECT)
        now = asyncio.get_running_loop().time()
        writer.stalled_for(now)
        assert writer.stalled_for(now + 5) == pytest.approx(5)
        socket.waiting = 40
        assert writer.stalled_for(now + 6) == 0.0
        assert writer.stalled_for(now + 8) == pytest.approx(2)
        socket.taking.set()
        await place.emptied()
        assert writer.stalled_for(now + 9) == pytest.approx(9, abs=0.5), (
            "what the transport holds waits too, whoever wrote it"
        )
        socket.waiting = 0
        assert writer.stalled_for(now + 9) == 0.0

    run(main)


def test_what_the_drain_gets_out_is_a_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the transport can't say what it holds."""

    async def main(place: Place) -> None:
        loop, socket = asyncio.get_running_loop(), place.socket
        began = loop.time()
        socket.taking.clear()
        socket.writes.clear()
        place.writer.write(b"1")
        socket.taking.set()
        await turns()
        place.writer.write(b"2")
        socket.taking.clear()
        monkeypatch.setattr(loop, "time", lambda: began + 2)
        assert place.writer.stalled_for(loop.time()) == pytest.approx(2, abs=0.5)
        socket.writes.set()
        await turns()
        assert place.got == [b"1"]
        assert place.writer.stalled_for(loop.time()) == 0.0
        socket.taking.set()
        await place.emptied()

    run(main)


# Corked


def test_one_frame_goes_ahead_of_what_was_written_while_corked() -> None:
    async def main(place: Place) -> None:
        place.writer.cork()
        assert place.writer.write(b"1")
        emptying = asyncio.create_task(place.writer.emptied())
        await turns()
        assert place.got == []
        assert not emptying.done()  # otherwise a replay would poll until the cork is out
        place.writer.uncork(b"0")
        await emptying
        assert b"".join(each for each in place.got if isinstance(each, bytes)) == b"01"
        assert not place.socket.held

    run(main)


def test_waiters_go_on_where_nothing_was_written_while_corked() -> None:
    async def main(place: Place) -> None:
        place.writer.cork()
        emptying = asyncio.create_task(place.writer.emptied())
        await turns()
        place.writer.uncork()
        await emptying

    run(main)


@pytest.mark.parametrize("discard", [True, False])
def test_an_end_discards_what_was_written_while_corked(discard: bool) -> None:
    async def main(place: Place) -> None:
        place.writer.cork()
        place.writer.write(b"1")
        place.writer.end(discard=discard)
        await place.emptied()  # so that the Close frame does not wait
        place.writer.uncork(b"0")
        await place.emptied()
        assert place.got == []
        assert place.writer.queued_bytes == 0
        assert place.socket.held

    run(main)


def test_a_corked_socket_is_not_stalled() -> None:
    async def main(place: Place) -> None:
        place.writer.cork()
        place.writer.write(b"1")
        now = asyncio.get_running_loop().time()
        assert place.writer.stalled_for(now + 1000.0) == 0.0
        place.writer.uncork()
        await place.emptied()

    run(main)
