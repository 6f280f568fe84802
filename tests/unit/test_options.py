"""Options: what they default to, what they refuse, and which a room gets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import ConnectionManager, History, InvalidArgument, Limits, RoomOptions
from hubbub.options import OVERFLOWS, RoomPatterns, RoomTable

NAN, INF = float("nan"), float("inf")
MIB = 1024 * 1024
ONE = RoomOptions(history=1)
TWO = RoomOptions(announce=True)


def refused(argument: str, make: Any, **arguments: Any) -> InvalidArgument:
    """The error, which names the argument, what was wrong with it, and what would be right."""
    with pytest.raises(InvalidArgument) as caught:
        make(**arguments)
    error = caught.value
    assert error.argument == argument
    assert error.problem
    assert error.accepted
    assert str(error).startswith(f"{argument}: ")
    assert len(str(error)) < 600
    return error


# RoomOptions


def test_a_room_keeps_nothing_and_closes_the_slow_by_default() -> None:
    options = RoomOptions()
    assert options.kept is None
    assert not options.numbered
    assert not options.announce
    assert options.grace_s == 5.0
    assert options.overflow == "close"
    assert options.max_members is None


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        (None, None),
        (History(5, 60.0), History(5, 60.0)),
        (History(5), History(5, 300.0)),
        ((5, 60), History(5, 60)),
        ((5,), History(5, 300.0)),
        (5, History(5, 300.0)),
        ((5, INF), History(5, INF)),
    ],
)
def test_history_may_be_said_in_several_ways(history: Any, kept: History | None) -> None:
    options = RoomOptions(history=history)
    assert options.kept == options.history == kept
    assert options.kept is None or isinstance(options.kept, History)


def test_a_room_with_history_has_positions() -> None:
    assert not RoomOptions().numbered
    assert RoomOptions(history=1).numbered


def test_options_are_values() -> None:
    assert RoomOptions(history=(5, 60.0)) == RoomOptions(history=History(5, 60.0))
    assert hash(RoomOptions(history=5)) == hash(RoomOptions(history=History(5)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        RoomOptions().announce = True  # type: ignore[misc]
    assert dataclasses.replace(RoomOptions(history=5), announce=True).kept == History(5)


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_each_overflow_is_known(overflow: Any) -> None:
    assert RoomOptions(overflow=overflow).overflow == overflow


def test_a_replay_is_a_part_of_the_history() -> None:
    assert RoomOptions().replay == 0
    assert RoomOptions(history=5, replay=5).replay == 5
    assert "keeps no messages" in refused("replay", RoomOptions, replay=1).problem
    error = refused("replay", RoomOptions, history=(5, 60.0), replay=6)
    assert ("6 is more" in error.problem, error.accepted) == (True, "at most its size, 5")


@pytest.mark.parametrize("overflow", [each for each in OVERFLOWS if each != "close"])
def test_what_loses_messages_does_not_go_with_history(overflow: Any) -> None:
    error = refused("overflow", RoomOptions, history=5, overflow=overflow)
    assert overflow in error.problem
    RoomOptions(overflow=overflow)


BAD_ROOM_OPTIONS: list[tuple[str, list[Any]]] = [
    ("overflow", ["", "drop", "CLOSE", None, True, 0, [], ["close"]]),
    ("history", [0, -1, True, 2.5, "5", b"5", [5, 60], (), (0, 60), (-1,), (5, 0), (5, -1), (5, NAN), (5, None),
                 (5, "60"), (5, True), (5, 60, 1), (2.5, 60), ("5",), {"size": 5}, History(0), History(5, 0.0),
                 History(True)]),
    ("grace_s", [-1, -0.001, NAN, INF, None, "5", True, [5]]),
    ("max_members", [0, -1, 2.5, "5", True, NAN]),
    ("announce", ["no", None, 1, []]),
    ("replay", [-1, True, False, None, 2.5, "5", [], NAN]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD_ROOM_OPTIONS for value in values], ids=repr
)
def test_a_wrong_room_option_is_named(option: str, value: Any) -> None:
    refused(option, RoomOptions, **{option: value})


def test_room_options_take_no_other_and_none_by_place() -> None:
    with pytest.raises(TypeError):
        RoomOptions(5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        RoomOptions(histroy=5)  # type: ignore[call-arg]


# Limits


def limits(**values: Any) -> Limits:
    return Limits(**values)


def test_the_limits_are_safe_by_default() -> None:
    safe = Limits()
    assert safe.max_message_bytes == safe.max_outbox_bytes == MIB
    assert safe.max_errors == 10
    assert safe.max_connections_per_address is None, "behind a proxy all clients share one"
    for field in dataclasses.fields(safe):
        if field.name not in ("max_connections_per_address", "idle_timeout_s"):  # most clients only listen
            assert getattr(safe, field.name) is not None, field.name


OPTIONAL = ["max_message_bytes", "max_messages_per_s", "max_errors", "max_connections", "max_connections_per_user",
            "max_connections_per_address", "max_rooms_per_connection", "message_timeout_s",
            "handler_timeout_s", "idle_timeout_s"]  # fmt: skip
REQUIRED = ["max_outbox_bytes", "stall_timeout_s", "close_timeout_s", "shutdown_timeout_s"]
WHOLE = [name for name in (*OPTIONAL, *REQUIRED) if not name.endswith("_s")]
FRACTIONAL = [name for name in (*OPTIONAL, *REQUIRED) if name.endswith("_s")]


def test_the_tables_name_every_limit() -> None:
    assert {field.name for field in dataclasses.fields(Limits)} == {*OPTIONAL, *REQUIRED}


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_limit_can_be_switched_off(name: str) -> None:
    assert getattr(limits(**{name: None}), name) is None


@pytest.mark.parametrize("name", REQUIRED)
def test_what_holds_the_memory_together_can_not_be_switched_off(name: str) -> None:
    refused(name, Limits, **{name: None})


@pytest.mark.parametrize("name", [*OPTIONAL, *REQUIRED])
@pytest.mark.parametrize("value", [0, -1, NAN, -INF, "5", True, False, [], b"5"], ids=repr)
def test_a_wrong_limit_is_named(name: str, value: Any) -> None:
    error = refused(name, Limits, **{name: value})
    assert ("None" in error.accepted) == (name in OPTIONAL)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [2.5, 1.0, INF])
def test_what_is_counted_is_whole(name: str, value: float) -> None:
    refused(name, Limits, **{name: value})


@pytest.mark.parametrize("name", FRACTIONAL)
@pytest.mark.parametrize("value", [0.001, 1, 2.5])
def test_what_is_measured_may_be_a_fraction(name: str, value: float) -> None:
    assert getattr(limits(**{name: value}), name) == value


# Which a room gets


def test_an_exact_name_goes_before_the_patterns_and_these_in_their_order() -> None:
    three = RoomOptions(max_members=3)
    patterns = RoomPatterns({"ticker:*": ONE, "*": TWO, "ticker:EUR": three})
    assert patterns.match("ticker:EUR") is three
    assert patterns.match("ticker:USD") is ONE
    assert patterns.match("lobby") is TWO
    assert RoomPatterns({"*": TWO, "ticker:*": ONE}).match("ticker:USD") is TWO


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("lobby", ["lobby"], ["Lobby", "lobby2", "a lobby", "lobby\n"]),
        ("ticker:*", ["ticker:", "ticker:EUR", "ticker:a/b", "ticker:a\nb"], ["ticker", "Ticker:EUR", "my ticker:EUR"]),
        ("room?", ["room1", "room:"], ["room", "room12"]),
        ("room[0-9]", ["room1"], ["roomx", "room[0-9"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)", "a.bb(c)"]),
    ],
)
def test_patterns_are_those_of_the_shell(pattern: str, yes: list[str], no: list[str]) -> None:
    patterns = RoomPatterns({pattern: ONE})
    assert all(patterns.match(name) is ONE for name in yes)
    assert all(patterns.match(name) == RoomOptions() for name in no)


def test_a_pattern_may_have_names_as_those_of_an_endpoint() -> None:
    patterns = RoomPatterns({"chat:{room}": ONE, "chat:{room:path}": TWO})
    assert patterns.match("chat:lobby") is ONE
    assert patterns.match("chat:lobby:staff") is TWO
    assert patterns.match("chat:") == RoomOptions()
    assert RoomTable.from_json(RoomTable({"chat:{room}": ONE}).to_json())("chat:lobby") == ONE


def test_a_pattern_that_binds_a_name_twice_is_refused() -> None:
    refused("rooms['{a}:{a}']", lambda: RoomPatterns({"{a}:{a}": ONE}))
    refused("rooms['chat:{room']", lambda: ConnectionManager(rooms={"chat:{room": ONE}))


def test_a_room_that_is_called_like_its_pattern_has_its_options() -> None:
    assert RoomPatterns({"room[0-9]": ONE}).match("room[0-9]") is ONE


@given(
    st.text(min_size=1).filter(lambda pattern: pattern[0] != "$" and not set(pattern) & set("{}")), st.text(min_size=1)
)
def test_any_pattern_can_be_matched_with_any_name(pattern: str, name: str) -> None:
    patterns = RoomPatterns({pattern: ONE})
    assert patterns.match(pattern) is ONE
    assert patterns.match(name) in (ONE, RoomOptions())


@pytest.mark.parametrize("pattern", ["", "$everyone", "$*", None, 5, ("a",), b"a"])
def test_a_wrong_pattern_is_refused(pattern: Any) -> None:
    refused("rooms", lambda: RoomPatterns({pattern: ONE}))


@pytest.mark.parametrize("options", [None, {}, {"history": 5}, 5, RoomOptions, "close"], ids=repr)
def test_the_pattern_with_wrong_options_is_named(options: Any) -> None:
    refused("rooms['ticker:*']", lambda: RoomPatterns({"lobby": ONE, "ticker:*": options}))


# ConnectionManager


BAD_MANAGER_ARGUMENTS: list[tuple[str, list[Any]]] = [
    ("broker", [None, 5, b"memory://", "", "memory", "kafka://localhost"]),
    ("rooms", [5, "lobby", ["lobby"], [("lobby", ONE)], ONE, {"": ONE}, {5: ONE}]),
    ("everyone", [None, {}, 5, "close", RoomOptions]),
    ("users", [None, {}, 5, "close", RoomOptions]),
    ("limits", [None, {}, 5, Limits]),
    ("allowed_origins", [None, 5, "https://app.example", b"https://app.example", ["app.example"], [None], [""],
                         ["https://app.example/"], ["https://app.example/path"], ["https://*"], ["*.app.example"],
                         ["https://app.example:99999"]]),
    ("app_ping", ["no", None, 1]),
    ("client_frames", ["no", None, 0]),
    ("refuse_with", ["403", None, 1, True]),
    ("flush_interval_s", [-1, NAN, INF, None, "0", True]),
    ("thread_timeout_s", [-1, NAN, None, "10", True]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "value"),
    [(argument, value) for argument, values in BAD_MANAGER_ARGUMENTS for value in values],
    ids=repr,
)
def test_a_wrong_argument_of_the_manager_is_named(argument: str, value: Any) -> None:
    refused(argument, ConnectionManager, **{argument: value})


def test_a_wrong_option_of_one_room_is_named_with_its_pattern() -> None:
    refused("rooms['lobby']", ConnectionManager, rooms={"lobby": None})


def test_everyone_and_users_are_matched_by_no_pattern() -> None:
    manager = ConnectionManager(rooms={"*": ONE, "?*": ONE}, everyone=TWO, users=RoomOptions(history=3))
    assert manager._hubbub.options_of("$everyone") is TWO
    assert manager._hubbub.options_of("$user:42").kept == History(3)
    assert manager._hubbub.options_of("lobby") is ONE
