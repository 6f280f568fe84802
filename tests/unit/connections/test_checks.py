"""The regular check: when it ends a socket, and when it cancels a handler."""

from __future__ import annotations

import asyncio

import pytest

from hubbub.close import CloseCode, Closed
from hubbub.connections.socket import State
from hubbub.protocols.frames import Opcode, frame
from tests.unit.sockets import Site, on_site

LATER_S = 1_000_000.0


@pytest.mark.parametrize(
    ("code", "ends_after_s"), [(4000, 30.0), (CloseCode.SERVICE_RESTART.code, 5.0)], ids=["close", "restart"]
)
def test_a_handler_that_does_not_know_of_the_end_is_cancelled_in_time(code: int, ends_after_s: float) -> None:
    async def main() -> None:
        opened: asyncio.Future[Site] = asyncio.get_running_loop().create_future()

        async def handle() -> None:
            site = Site([], {"handler_timeout_s": 30.0, "shutdown_timeout_s": 5.0})
            await site.accept()
            opened.set_result(site)
            await asyncio.Event().wait()

        handler = asyncio.create_task(handle())
        site = await opened
        await site.socket.close(code, "")
        site.check(ends_after_s - 1.0)
        await asyncio.sleep(0)
        assert not site.socket.handler.cancelled
        site.check(ends_after_s + 1.0)
        await asyncio.wait([handler])
        assert handler.cancelled()
        assert site.socket.handler.cancelled
        await site.manager.tasks.close(5.0)

    asyncio.run(main())


def test_a_token_that_runs_out_closes_without_grace_and_the_earliest_counts() -> None:
    async def test(site: Site) -> None:
        site.socket.expire_at(1.0)
        site.socket.expire_at(LATER_S * LATER_S)
        site.socket.grant(subprotocol=None, expires_at=None)
        site.check()
        assert site.socket.state is State.HANDSHAKE
        await site.accept()
        site.check()
        assert site.socket.closed == Closed(1008, "token expired")
        assert site.session.calls[-1] == "gone without grace"
        assert site.manager.counters.refused == {"token_expired": 1}

    on_site(test)


def test_silence_closes_from_accept_on() -> None:
    async def test(site: Site) -> None:
        site.check()
        site.check(100.0)
        await site.accept()
        site.check(200.0)
        site.check(209.0)
        assert site.socket.state is State.OPEN
        site.check(211.0)
        assert site.socket.closed == Closed(1013, "idle")

    on_site(test, idle_timeout_s=10.0)


def test_a_client_that_takes_nothing_while_frames_wait_is_aborted() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.spare_the_task()
        site.check()
        site.server.taking.clear()
        assert site.socket.writer.write(frame(Opcode.TEXT, b"hello"))
        site.check()
        site.check(19.0)
        assert site.socket.state is State.OPEN
        site.check(21.0)
        assert (site.socket.state, site.socket.closed) == (State.ABORTED, Closed(1006, ""))
        assert site.manager.counters.stalled == 1
        site.socket.on_handler_end()

    on_site(test, stall_timeout_s=20.0)
