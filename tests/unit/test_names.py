"""Names of rooms and users."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub import EVERYONE, InvalidArgument
from hubbub.names import EVERYONE_NAME, RoomNames, is_user_room, label, room_name, user_name, user_room
from tests.unit.support import may_refuse

ID = UUID("12345678123456781234567812345678")


@pytest.mark.parametrize("room", ["lobby", "a", "ü" * 127, "x" * 255, "a b", "a\nb", "a$", "*", "[", " ", "\0"])
def test_a_room_may_be_called(room: str) -> None:
    assert room_name(room) == room


@pytest.mark.parametrize(
    "room",
    [
        "",
        "x" * 256,
        "ü" * 128,
        "$",
        "$everyone",
        "$user:42",
        "a\ud800",
        None,
        b"lobby",
        ["lobby"],
        1.5,
        EVERYONE,
        True,
        10**300,
        pytest.param(10**5000, id="a number that Python does not print"),
    ],
    ids=ascii,
)
def test_a_room_may_not_be_called(room: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^room: ") as caught:
        room_name(room)
    assert "255 bytes" in caught.value.accepted


class Place(StrEnum):
    LOBBY = "lobby"


class Kind(str, Enum):  # noqa: UP042 - whose str() is not its value
    ADMIN = "admin"


class Number(int, Enum):
    SEVEN = 7


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (42, "42"),
        (0, "0"),
        (-1, "-1"),
        (ID, str(ID)),
        (Place.LOBBY, "lobby"),
        (Kind.ADMIN, "admin"),
        (Number.SEVEN, "7"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name_of", [room_name, user_name])
def test_rooms_and_users_may_have_the_same_kinds_of_ids(name_of: Any, value: Any, name: str) -> None:
    assert name_of(value) == name
    assert type(name_of(value)) is str


def test_rooms_are_found_by_what_they_are_called_by() -> None:
    rooms = RoomNames(["5", str(ID), "lobby"])
    assert all(room in rooms for room in (5, "5", ID, str(ID), Place.LOBBY))
    assert not any(room in rooms for room in (6, "six", Kind.ADMIN))
    assert rooms == frozenset(["5", str(ID), "lobby"])


def test_a_missing_room_is_said_not_to_be_everyone() -> None:
    with pytest.raises(InvalidArgument, match=r"must not reach everybody.*EVERYONE"):
        room_name(None)


def test_the_argument_is_called_as_the_caller_calls_it() -> None:
    with pytest.raises(InvalidArgument, match=r"^rooms\[3\]: "):
        room_name("", "rooms[3]")


@pytest.mark.parametrize(
    ("user_id", "name"),
    [("ann", "ann"), (42, "42"), ("42", "42"), (0, "0"), (-1, "-1"), (ID, str(ID)), (str(ID), str(ID)), ("$x", "$x")],
    ids=repr,
)
def test_a_user_is_known_by_the_str_of_its_id(user_id: Any, name: str) -> None:
    assert user_name(user_id) == name


@pytest.mark.parametrize(
    "user_id",
    [
        "",
        "x" * 256,
        "ü" * 128,
        "\ud800",
        None,
        True,
        False,
        1.5,
        b"ann",
        ["ann"],
        10**300,
        pytest.param(10**5000, id="a number that Python does not print"),
    ],
)
def test_what_is_no_user_id(user_id: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^user_id: "):
        user_name(user_id)


def test_a_users_room_does_not_say_to_clients_whose_it_is() -> None:
    name = user_room("ann")
    assert is_user_room(name)
    assert label(name) == "$user"
    assert "ann" not in label(name)
    assert not is_user_room("ann")
    assert label("lobby") == "lobby"
    assert label(EVERYONE_NAME) == "$everyone"
    assert not is_user_room(EVERYONE_NAME)


@given(st.text(), st.text())
def test_no_two_rooms_share_a_name(one: str, two: str) -> None:
    """Those of the app, those of users and everyone's are told apart, whatever users are called."""
    names = {user_room(one), user_room(two), EVERYONE_NAME}
    assert len(names) == (2 if one == two else 3)
    for room in (one, two):
        with may_refuse("room"):
            assert room_name(room) not in names


@given(st.text() | st.integers() | st.uuids() | st.none() | st.binary() | st.floats())
def test_any_id_is_a_name_or_is_refused(value: Any) -> None:
    for check, argument in ((room_name, "room"), (user_name, "user_id")):
        with may_refuse(argument):
            name = check(value)
            assert name == str(value)
            assert 1 <= len(name.encode()) <= 255


def test_everyone_shows_its_name() -> None:
    assert repr(EVERYONE) == "EVERYONE"
