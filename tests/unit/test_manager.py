"""The manager's public calls: what each checks before it acts, and what it gives where nobody is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf, nan
from typing import Any

import pytest

from hubbub import ConnectionManager, History, Limits, Position, RoomOptions
from hubbub.errors import (
    BrokerUnavailable,
    InvalidArgument,
    NotInstalled,
    NotRunning,
    NotSupported,
    ThreadTimeout,
    WrongLoop,
    WrongThread,
)

Call = Callable[[ConnectionManager], Any]

CALLS: dict[str, Call] = {
    "broadcast": lambda manager: manager.broadcast("hello"),
    "broadcast_to_room": lambda manager: manager.broadcast_to_room("lobby", "hello"),
    "broadcast_nowait": lambda manager: manager.broadcast_nowait("hello"),
    "send_to_user": lambda manager: manager.send_to_user("ann", "hello"),
    "send_to_user_nowait": lambda manager: manager.send_to_user_nowait("ann", "hello"),
    "disconnect_user": lambda manager: manager.disconnect_user("ann"),
    "unsubscribe": lambda manager: manager.unsubscribe("ann", "lobby"),
    "presence": lambda manager: manager.presence("lobby"),
    "count_users": lambda manager: manager.count_users(),
    "is_online": lambda manager: manager.is_online("ann"),
    "history": lambda manager: manager.history("lobby"),
    "drain": lambda manager: manager.drain(),
}


async def done(call: Call, manager: ConnectionManager) -> Any:
    """What a call gives, awaited where it is to be awaited."""
    result = call(manager)
    return await result if asyncio.iscoroutine(result) else result


def running(test: Callable[[ConnectionManager], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        manager = ConnectionManager(**options)
        async with manager.lifespan():
            await test(manager)

    asyncio.run(main())


# Making one


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("broker", "mysql://localhost"),
        ("broker", 5),
        ("rooms", {"lobby": 5}),
        ("everyone", {"history": 5}),
        ("users", None),
        ("limits", {"max_connections": 5}),
        ("allowed_origins", ["app.example"]),
        ("app_ping", 1),
        ("client_frames", "no"),
        ("refuse_with", "403"),
        ("flush_interval_s", -0.1),
        ("flush_interval_s", inf),
        ("flush_interval_s", nan),
        ("flush_interval_s", True),
        ("thread_timeout_s", "10"),
    ],
)
def test_an_option_that_is_not_acceptable_is_named(argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ConnectionManager(**{argument: value})
    assert caught.value.argument.startswith(argument)
    assert caught.value.accepted


@pytest.mark.parametrize("seconds", [0, 0.0, 5])
def test_an_interval_of_nothing_is_an_interval(seconds: float) -> None:
    ConnectionManager(flush_interval_s=seconds, thread_timeout_s=seconds)


def test_a_manager_needs_no_event_loop_and_can_be_asked_before_it_runs() -> None:
    manager = ConnectionManager()
    assert (manager.running, manager.ready) == (False, False)
    assert (list(manager.active_connections), manager.active_user_count, manager.rooms) == ([], 0, frozenset())
    assert manager.connections() == manager.connections(room="lobby", user="ann") == []
    stats = manager.stats()
    assert (stats.connections, stats.published, stats.fast_path) == (0, 0, 0.0)


# Running


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_a_manager_that_is_not_installed_says_which_line_to_add(name: str) -> None:
    with pytest.raises(NotInstalled, match=r"add `manager.install\(app\)`"):
        asyncio.run(done(CALLS[name], ConnectionManager()))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_after_the_end_says_that_the_manager_does_not_run(name: str) -> None:
    async def main() -> None:
        manager = ConnectionManager()
        manager._hubbub.lifecycle.installed = True
        async with manager.lifespan():
            pass
        with pytest.raises(NotRunning):
            await done(CALLS[name], manager)

    asyncio.run(main())


@pytest.mark.parametrize("name", CALLS)
def test_a_call_on_another_event_loop_says_where_the_manager_runs(name: str) -> None:
    async def test(manager: ConnectionManager) -> None:
        def elsewhere() -> None:
            asyncio.run(done(CALLS[name], manager))

        with pytest.raises(WrongLoop, match="another event loop"):
            await asyncio.to_thread(elsewhere)

    running(test)


@pytest.mark.parametrize("name", ["broadcast_nowait", "send_to_user_nowait"])
def test_a_plain_call_in_a_thread_names_the_one_for_threads(name: str) -> None:
    async def test(manager: ConnectionManager) -> None:
        with pytest.raises(WrongThread, match=r"manager\.from_thread"):
            await asyncio.to_thread(CALLS[name], manager)

    running(test)


def test_a_manager_is_ready_from_its_start_until_it_drains() -> None:
    async def main() -> None:
        manager = ConnectionManager()
        async with manager.lifespan():
            assert (manager.running, manager.ready) == (True, True)
            assert await manager.drain(0.0), "there are no handlers to wait for"
            assert (manager.running, manager.ready) == (True, False)
        assert (manager.running, manager.ready) == (False, False)
        async with manager.lifespan():
            assert manager.ready, "a drain does not outlive its run"

    asyncio.run(main())


@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_nobody_connected_is_no_error(name: str) -> None:
    async def test(manager: ConnectionManager) -> None:
        expected = {"presence": [], "history": [], "count_users": 0, "drain": True}
        falsy = {"send_to_user", "disconnect_user", "unsubscribe", "is_online"}
        assert await done(CALLS[name], manager) == expected.get(name, False if name in falsy else None)
        assert await manager.broker_healthy()

    running(test)


# Arguments


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        pytest.param(lambda manager: manager.broadcast("hello", room=None), "room", id="no room"),
        pytest.param(lambda manager: manager.broadcast("hello", room=""), "room", id="an empty room"),
        pytest.param(lambda manager: manager.broadcast(object()), "message", id="no message"),
        pytest.param(lambda manager: manager.broadcast("hello", exclude=5), "exclude", id="no connection"),
        pytest.param(lambda manager: manager.broadcast("hello", exclude_users=b"a"), "exclude_users", id="no user"),
        pytest.param(lambda manager: manager.broadcast("hello", key=5), "key", id="no key"),
        pytest.param(lambda manager: manager.broadcast_nowait("hello", room=None), "room", id="no room, nowait"),
        pytest.param(lambda manager: manager.send_to_user("", "hello"), "user_id", id="an empty user"),
        pytest.param(lambda manager: manager.send_personal("hello", "ann"), "websocket", id="no socket"),
        pytest.param(lambda manager: manager.disconnect("ann"), "websocket", id="nothing to disconnect"),
        pytest.param(lambda manager: manager.disconnect_user("ann", 1005), "code", id="no code"),
        pytest.param(lambda manager: manager.disconnect_user("ann", reason="x" * 124), "reason", id="a long reason"),
        pytest.param(lambda manager: manager.unsubscribe("", "lobby"), "user_id", id="an empty user, unsubscribed"),
        pytest.param(lambda manager: manager.unsubscribe("ann", "$user:bob"), "room", id="a room of ours"),
        pytest.param(lambda manager: manager.connections(room=None), "room", id="connections of no room"),
        pytest.param(lambda manager: manager.connections(user=None), "user", id="connections of no user"),
        pytest.param(lambda manager: manager.history("kept", limit=0), "limit", id="a limit of nothing"),
        pytest.param(lambda manager: manager.history("kept", limit=True), "limit", id="a limit that is a flag"),
        pytest.param(lambda manager: manager.history("kept", since=5), "since", id="no position"),
        pytest.param(lambda manager: manager.drain(-1.0), "over_s", id="time that runs back"),
        pytest.param(lambda manager: manager.install("app"), "app", id="no app"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_published(call: Call, argument: str) -> None:
    async def test(manager: ConnectionManager) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await done(call, manager)
        assert caught.value.argument == argument
        assert manager.stats().published == 0

    running(test)


# What is published


def test_a_history_is_that_which_was_published_from_a_position_on() -> None:
    async def test(manager: ConnectionManager) -> None:
        positions = [await manager.broadcast({"n": number}, room="kept") for number in range(4)]
        assert await manager.broadcast_to_room("lobby", "hello") is None
        recorded = await manager.history("kept")
        assert [each.message for each in recorded] == [{"n": 1}, {"n": 2}, {"n": 3}], "three are kept"
        assert [each.position for each in recorded] == positions[1:]
        assert [each.message for each in await manager.history("kept", limit=1)] == [{"n": 3}]
        assert [each.message for each in await manager.history("kept", since=positions[1], limit=1)] == [{"n": 2}]
        assert await manager.history("kept", since=positions[-1]) == []
        assert len(await manager.history("kept", since=Position("another", 1))) == 3
        assert manager.stats().published == 5

    running(test, rooms={"kept": RoomOptions(history=History(3))})


def test_a_thread_publishes_and_asks_through_the_loop() -> None:
    async def test(manager: ConnectionManager) -> None:
        def in_thread() -> list[Any]:
            manager.from_thread.broadcast("hello", room="kept")
            return manager.from_thread.history("kept")

        (recorded,) = await asyncio.to_thread(in_thread)
        assert recorded.message == "hello"
        with pytest.raises(WrongThread):
            manager.from_thread.broadcast("on the loop itself")

    running(test, rooms={"kept": RoomOptions(history=3)})


def test_a_call_from_a_thread_does_not_wait_longer_than_it_may() -> None:
    async def test(manager: ConnectionManager) -> None:
        async def away(*_: Any, **__: Any) -> None:
            await asyncio.Event().wait()

        manager._hubbub.broker.members = away  # type: ignore[method-assign, assignment]
        with pytest.raises(ThreadTimeout):
            await asyncio.to_thread(manager.from_thread.presence)

    running(test, thread_timeout_s=0.0)


def test_a_broker_that_is_away_is_the_callers_to_know() -> None:
    async def test(manager: ConnectionManager) -> None:
        async def away(*_: Any, **__: Any) -> None:
            raise BrokerUnavailable("away")

        manager._hubbub.broker.publish = away  # type: ignore[method-assign]
        with pytest.raises(BrokerUnavailable, match="away"):
            await manager.broadcast("hello")

    running(test)


# A subclass


def test_a_subclass_that_does_not_call_init_is_told_to() -> None:
    class Forgetful(ConnectionManager):
        def __init__(self) -> None:
            pass

    with pytest.raises(NotInstalled, match=r"^Forgetful.__init__ has to call super\(\).__init__\(\)"):
        Forgetful().stats()


@pytest.mark.parametrize(
    "name", ["active_connections", "active_user_count", "rooms", "running", "ready", "from_thread"]
)
def test_what_the_manager_keeps_can_not_be_assigned(name: str) -> None:
    with pytest.raises(NotSupported, match=rf"^ConnectionManager\.{name} can't be assigned: "):
        setattr(ConnectionManager(limits=Limits()), name, 1)


def test_an_attribute_that_it_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sockets'"):
        ConnectionManager().sockets  # type: ignore[attr-defined]  # noqa: B018 - which is what is tested
