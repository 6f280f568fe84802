"""One socket: the states of its life, and what each step tells the server, the handler and the connections.

The server is a fake: it notes what is sent to it, and gives what a test lets it receive.
"""

from __future__ import annotations

import asyncio
from itertools import product

import pytest
from starlette.exceptions import HTTPException, WebSocketException

from hubbub.close import CloseCode, Closed
from hubbub.connections.handler import HandlerState
from hubbub.connections.handshake import Gone
from hubbub.connections.inbound_limits import Complaint
from hubbub.connections.socket import TRANSITIONS, State
from hubbub.options import RefuseWith
from tests.unit.sockets import ACCEPT, Manager, Session, Site, on_site

HELLO = {"type": "websocket.receive", "text": "hello"}
MOMENT_S = 0.01
LATER_S = 1_000_000.0


# The states


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_a_socket_takes_the_transitions_of_the_table_and_no_others(before: State, after: State) -> None:
    async def test(site: Site) -> None:
        socket = site.socket
        socket.state = before
        if after in TRANSITIONS[before]:
            socket._enter(after)
            assert socket.state is after
        else:
            with pytest.raises(AssertionError, match="can't go from"):
                socket._enter(after)
            assert socket.state is before

    on_site(test)


@pytest.mark.parametrize(
    ("state", "accepted"),
    [
        (State.HANDSHAKE, False),
        (State.REFUSED, False),
        (State.FAILED, False),
        (State.OPEN, True),
        (State.CLOSING, True),
        (State.LOST, True),
    ],
)
def test_a_socket_counts_as_accepted_from_accept_on(state: State, accepted: bool) -> None:
    async def test(site: Site) -> None:
        site.socket.state = state
        assert site.socket.accepted is accepted

    on_site(test)


def test_a_socket_opens_with_accept_and_closes_with_one_close_frame() -> None:
    async def test(site: Site) -> None:
        socket = site.socket
        assert (socket.state, socket.closed) == (State.HANDSHAKE, None)
        await site.accept()
        assert (socket.state, socket.closed) == (State.OPEN, None)
        await socket.close(4000, "enough")
        await socket.close(4001, "again")
        socket.close_soon(CloseCode.KICKED)
        socket.on_lost()
        assert (socket.state, socket.closed) == (State.CLOSING, Closed(4000, "enough"))
        assert site.server.types == ["accept", "close"]
        assert site.server.sent[1]["code"] == 4000
        assert site.session.calls.count("gone") == 1
        assert socket.handler.state is HandlerState.CLOSED

    on_site(test)


def test_a_close_is_on_its_way_when_who_waits_for_it_is_cancelled() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.server.taking.clear()
        waiting = asyncio.create_task(site.socket.close(4000, ""))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        site.server.taking.set()
        await site.socket.close(4001, "")
        assert site.server.types == ["accept", "close"]
        assert site.socket.handler.state is HandlerState.CLOSED  # by the second close, which was the handler's

    on_site(test)


def test_a_client_that_does_not_take_the_close_is_aborted_and_counted_once() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.spare_the_task()
        site.server.taking.clear()
        await site.socket.close(4000, "")
        assert (site.socket.state, site.socket.closed) == (State.ABORTED, Closed(4000, ""))
        site.check(LATER_S)
        site.socket.on_vanished()
        assert site.socket.state is State.ABORTED
        assert (site.manager.counters.stalled, site.manager.counters.vanished) == (1, 0)

    on_site(test, close_timeout_s=MOMENT_S, handler_timeout_s=None)


def test_the_servers_word_says_how_a_socket_that_was_lost_ended() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.socket.on_lost()
        assert (site.socket.state, site.socket.closed) == (State.LOST, Closed(1006, ""))
        site.server.inbox.put_nowait({"type": "websocket.disconnect", "code": 4002, "reason": "by the client"})
        await site.socket.receive()
        assert (site.socket.state, site.socket.closed) == (State.LOST, Closed(4002, "by the client"))
        assert site.socket.handler.informed

    on_site(test)


def test_our_own_close_stands_whatever_the_server_says_afterwards() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        await site.socket.close(4000, "ours")
        site.server.inbox.put_nowait({"type": "websocket.disconnect", "code": 1005})
        await site.socket.receive()
        assert (site.socket.state, site.socket.closed) == (State.CLOSING, Closed(4000, "ours"))

    on_site(test)


def test_a_kick_ends_the_presence_at_once() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.socket.close_soon(CloseCode.KICKED, grace=False)
        assert site.session.calls[-1] == "gone without grace"

    on_site(test)


def test_a_client_without_a_sign_of_life_is_aborted_and_counted_as_vanished() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.spare_the_task()
        site.socket.on_vanished()
        site.socket.on_vanished()
        assert site.socket.state is State.ABORTED
        assert (site.manager.counters.stalled, site.manager.counters.vanished) == (0, 1)

    on_site(test)


# The handshake


def test_an_accept_that_the_client_did_not_wait_for_raises_gone() -> None:
    async def test(site: Site) -> None:
        site.server.gone = True
        for _ in range(2):
            with pytest.raises(Gone) as caught:
                await site.accept()
            assert caught.value.code == 1006
        assert (site.socket.state, site.socket.closed) == (State.FAILED, Closed(1006, ""))
        assert site.session.calls == ["gone"]

    on_site(test)


def test_an_accept_that_is_overtaken_by_the_end_raises_gone() -> None:
    async def test(site: Site) -> None:
        site.server.taking.clear()
        accepting = asyncio.create_task(site.accept())
        await asyncio.sleep(0)
        site.socket.on_lost()
        site.server.taking.set()
        with pytest.raises(Gone):
            await accepting
        assert site.socket.state is State.FAILED

    on_site(test)


@pytest.mark.parametrize("over", ["http", "close"])
def test_a_refusal_is_an_answer_over_http_or_a_close_that_a_page_can_read(over: RefuseWith) -> None:
    async def test(site: Site) -> None:
        site.manager.refuse_with = over
        await site.close(4003, "no")
        assert site.server.types == (["close"] if over == "http" else ["accept", "close"])
        assert site.socket.state is (State.REFUSED if over == "http" else State.CLOSING)
        assert site.socket.closed == Closed(4003, "no")
        assert site.manager.counters.refused == {"app": 1}

    on_site(test)


def test_an_auth_dependency_has_its_refusal_answered_over_http_and_counts_it_itself() -> None:
    async def test(site: Site) -> None:
        site.socket.count_refused("token")
        site.socket.refuse_over_http()
        await site.close(4003, "no")
        assert site.server.types == ["close"]
        assert site.manager.counters.refused == {"token": 1}

    on_site(test)


def test_a_response_of_the_apps_own_making_is_passed_on_and_refuses_once_it_is_whole() -> None:
    async def test(site: Site) -> None:
        await site.socket.send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await site.socket.send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
        assert site.socket.state is State.HANDSHAKE
        await site.socket.send({"type": "websocket.http.response.body", "body": b"pot"})
        assert (site.socket.state, site.socket.closed) == (State.REFUSED, Closed(1006, ""))
        assert len(site.server.sent) == 3

    on_site(test)


def test_a_refusal_that_reaches_nobody_is_no_error() -> None:
    async def test(site: Site) -> None:
        site.server.gone = True
        await site.socket.deny(CloseCode.ORIGIN)
        assert (site.socket.state, site.socket.closed) == (State.REFUSED, Closed(1008, "origin not allowed"))
        site.check(LATER_S)
        assert site.socket.state is State.REFUSED

    on_site(test)


def test_an_accept_answers_what_an_auth_dependency_wants_unless_the_app_says_otherwise() -> None:
    async def test(site: Site) -> None:
        site.socket.grant(subprotocol="bearer", expires_at=None)
        await site.accept()
        assert site.server.sent == [{**ACCEPT, "subprotocol": "bearer"}]

    on_site(test, "chat", "bearer")


@pytest.mark.parametrize(
    ("error", "closed"),
    [
        (WebSocketException(4010, "so"), Closed(4010, "so")),
        (HTTPException(403, "forbidden"), Closed(1008, "forbidden")),
        (HTTPException(503, "busy"), Closed(1011, "busy")),
    ],
)
def test_an_exception_after_accept_closes_with_what_it_says(error: Exception, closed: Closed) -> None:
    async def test(site: Site) -> None:
        await site.accept()
        try:
            raise error
        except type(error):
            await site.socket.send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        assert (site.socket.state, site.socket.closed) == (State.CLOSING, closed)

    on_site(test)


def test_a_socket_that_opens_while_the_manager_drains_is_closed_at_once() -> None:
    async def test(site: Site) -> None:
        site.manager.draining = True
        await site.accept()
        assert site.socket.closed == Closed(1012, "")

    on_site(test)


# What comes in


def test_what_came_before_the_client_saw_our_close_is_dropped() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        assert site.socket.admit(dict(HELLO))
        site.socket.close_soon(CloseCode.KICKED)
        assert not site.socket.admit(dict(HELLO))
        assert site.manager.counters.received == 1

    on_site(test)


def test_what_came_before_the_client_left_is_still_given_to_the_handler() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.server.inbox.put_nowait(dict(HELLO))
        site.socket.on_lost()
        assert await site.socket.receive() == HELLO

    on_site(test)


def test_a_bad_message_is_answered_and_one_too_many_closes() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        for _ in range(2):
            assert site.socket.state is State.OPEN
            site.socket.complain(Complaint("bad", "it is bad"))
        assert site.socket.closed == Closed(1007, "too many invalid messages")
        site.socket.complain(Complaint("bad", "it is bad"))
        assert site.manager.counters.errors == {"bad": 2}

    on_site(test, max_errors=2)


def test_a_client_that_floods_before_it_is_accepted_is_aborted() -> None:
    async def test(site: Site) -> None:
        site.spare_the_task()
        site.socket.complain(Complaint("rate_limited", "over 1 message a second"))
        assert (site.socket.state, site.socket.closed) == (State.ABORTED, Closed(1006, ""))
        assert site.manager.counters.stalled == 1

    on_site(test)


# What goes out, and what the handler knows


def test_a_handler_that_sends_after_the_end_is_told_and_then_ignores_it() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.socket.on_lost()
        states = []
        for _ in range(2):
            with pytest.raises(Gone):
                await site.socket.send({"type": "websocket.send", "text": "hello"})
            states.append(site.socket.handler.state)
        assert states == [HandlerState.INFORMED, HandlerState.IGNORING]

    on_site(test)


def test_a_send_that_fails_tells_that_the_client_is_gone() -> None:
    async def test(site: Site) -> None:
        await site.accept()
        site.server.gone = True
        with pytest.raises(Gone):
            await site.socket.send({"type": "websocket.send", "text": "hello"})
        assert site.socket.state is State.LOST

    on_site(test)


def test_the_first_manager_that_connects_says_which_limits_hold() -> None:
    async def test(site: Site) -> None:
        socket, second, third = site.socket, Manager(max_message_bytes=7), Manager(max_message_bytes=8)
        socket.sessions.clear()
        site.manager.sweeper.watch(socket)
        socket.adopt(second)
        assert site.manager.sweeper.watched == []
        assert (socket.limits, socket.guard.limits) == (second.limits, second.limits)
        socket.sessions.append(Session())
        socket.adopt(third)
        assert socket.limits is second.limits

    on_site(test)
