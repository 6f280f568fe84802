"""What the handler of a socket knows of its end, and when its time is over."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from hubbub.connections.handler import TRANSITIONS, Handler, HandlerState

ENDED_AT, PATIENCE_S = 100.0, 10.0


def in_task(*calls: str) -> Handler:
    """A handler, after calls that are made from its task."""

    async def main() -> Handler:
        handler = Handler()
        for call in calls:
            if call == "on_failed_send":
                handler.on_failed_send(now=ENDED_AT + 50.0)
            else:
                getattr(handler, call)()
        return handler

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("calls", "state", "informed"),
    [
        ([], HandlerState.RUNNING, False),
        (["on_close"], HandlerState.CLOSED, False),
        (["on_disconnect"], HandlerState.INFORMED, True),
        (["on_disconnect", "on_disconnect"], HandlerState.INFORMED, True),
        (["on_disconnect", "on_close"], HandlerState.INFORMED, True),
        (["on_failed_send"], HandlerState.INFORMED, True),
        (["on_close", "on_failed_send"], HandlerState.INFORMED, True),
        (["on_disconnect", "on_failed_send"], HandlerState.IGNORING, True),
        (["on_failed_send", "on_failed_send", "on_failed_send"], HandlerState.IGNORING, True),
        (["on_failed_send", "on_failed_send", "on_disconnect", "on_close"], HandlerState.IGNORING, True),
    ],
)
def test_a_handler_learns_of_the_end_by_receiving_or_sending(
    calls: list[str], state: HandlerState, informed: bool
) -> None:
    handler = in_task(*calls)
    assert handler.state is state
    assert handler.informed is informed
    assert not handler.cancelled


@pytest.mark.parametrize(
    ("calls", "over_at"),
    [
        ([], ENDED_AT + PATIENCE_S),
        (["on_close"], None),
        (["on_disconnect"], None),
        (["on_failed_send"], None),
        (["on_disconnect", "on_failed_send"], ENDED_AT + 50.0 + PATIENCE_S),
        (["on_close", "on_failed_send", "on_failed_send"], ENDED_AT + 50.0 + PATIENCE_S),
    ],
)
def test_a_handler_that_knows_and_sends_no_more_has_all_the_time_to_clean_up(
    calls: list[str], over_at: float | None
) -> None:
    handler = in_task(*calls)
    times = [ENDED_AT + seconds / 2 for seconds in range(200)]
    first = next((now for now in times if handler.overdue(now, ENDED_AT, PATIENCE_S)), None)
    assert first == over_at
    assert not any(handler.overdue(now, ENDED_AT, None) for now in times)


async def _close_elsewhere(handler: Handler) -> None:
    handler.on_close()


def test_a_close_from_another_task_tells_the_handler_nothing() -> None:
    async def main() -> HandlerState:
        handler = Handler()
        await asyncio.create_task(_close_elsewhere(handler))
        return handler.state

    assert asyncio.run(main()) is HandlerState.RUNNING


def test_a_handler_is_cancelled_once() -> None:
    async def main() -> None:
        handlers: list[Handler] = []

        async def handle() -> None:
            handlers.append(Handler())
            with pytest.raises(asyncio.CancelledError, match="the client is gone"):
                await asyncio.Event().wait()
            await asyncio.sleep(0)  # a second cancellation would end it here
            handlers[0].on_disconnect()
            handlers[0].on_failed_send(now=0.0)
            handlers[0].on_close()

        task = asyncio.create_task(handle())
        await asyncio.sleep(0)
        (handler,) = handlers
        assert [handler.cancel(), handler.cancel()] == [True, False]
        await task
        assert handler.cancelled
        assert handler.informed

    asyncio.run(main())


@pytest.mark.parametrize("how", ["its task is over", "it has ended, and the server's task goes on"])
def test_a_handler_that_has_ended_is_not_cancelled(how: str) -> None:
    async def main() -> None:
        handlers: list[Handler] = []
        go_on = asyncio.Event()

        async def serve() -> None:
            handlers.append(Handler())
            if how != "its task is over":
                handlers[0].end()
                await go_on.wait()

        task = asyncio.create_task(serve())
        await asyncio.sleep(0)
        assert not handlers[0].cancel()
        go_on.set()
        await task

    asyncio.run(main())


@pytest.mark.parametrize(("before", "after"), list(product(HandlerState, HandlerState)))
def test_a_handler_takes_the_transitions_of_the_table_and_no_others(before: HandlerState, after: HandlerState) -> None:
    handler = in_task()
    handler.state = before
    if after in TRANSITIONS[before]:
        handler._enter(after)
        assert handler.state is after
    else:
        with pytest.raises(AssertionError, match="can't go from"):
            handler._enter(after)
        assert handler.state is before
