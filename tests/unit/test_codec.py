"""Messages to bytes and back."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_serializer
from starlette.websockets import WebSocket

from hubbub import HubbubError, InvalidArgument
from hubbub.codec import MAX_DEPTH, Kind, Payload, decode, dumps, encode, loads, loads_from_client
from tests.typing.mistakes import Typed, messages
from tests.unit.support import may_refuse

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
NAIVE = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - is what is tested
BIG = 2**70


@dataclass
class Point:
    x: int
    at: datetime


class Model(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    name: str
    at: datetime
    price: Decimal = Decimal("1.50")
    tags: set[str] = Field(default_factory=set)


class Shouting(BaseModel):
    name: str

    @field_serializer("name")
    def shout(self, name: str) -> str:
        return name.upper()


class Failing(BaseModel):
    name: str = ""

    @field_serializer("name")
    def fail(self, name: str) -> str:
        raise RuntimeError("the app's own mistake")


class Color(enum.Enum):
    RED = "red"


Pair = namedtuple("Pair", "x y")


# Kinds


@settings(max_examples=50, deadline=None)
@given(TEXT)
def test_text_comes_back_as_it_was(text: str) -> None:
    payload = encode(text)
    assert payload == Payload(Kind.TEXT, text.encode())
    assert decode(payload) == text


@settings(max_examples=50, deadline=None)
@given(st.binary())
def test_bytes_come_back_as_they_were(data: bytes) -> None:
    payload = encode(data)
    assert payload == Payload(Kind.BINARY, data)
    assert decode(payload) == data


@pytest.mark.parametrize(
    "data",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a.b.c")[::2]],
    ids=["bytes", "bytearray", "memoryview", "strided memoryview"],
)
def test_every_kind_of_bytes_is_binary(data: Any) -> None:
    assert encode(data) == Payload(Kind.BINARY, b"abc")


def test_bytes_are_a_copy_of_what_may_change() -> None:
    data = bytearray(b"abc")
    payload = encode(data)
    data[0] = 0
    assert payload.data == b"abc"


@settings(max_examples=50, deadline=None)
@given(JSON.filter(lambda value: not isinstance(value, str)))
def test_json_comes_back_as_it_was(value: Any) -> None:
    payload = encode(value)
    assert payload.kind is Kind.JSON
    assert decode(payload) == value
    assert json.loads(payload.data) == value


# What JSON can say


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAIVE, '"2026-01-02T03:04:05"'),
        (NAIVE.replace(tzinfo=UTC), '"2026-01-02T03:04:05Z"'),
        (NAIVE.replace(tzinfo=timezone(timedelta(hours=2))), '"2026-01-02T03:04:05+02:00"'),
        (NAIVE.replace(microsecond=6), '"2026-01-02T03:04:05.000006"'),
        (date(2026, 1, 2), '"2026-01-02"'),
        (UUID("12345678123456781234567812345678"), '"12345678-1234-5678-1234-567812345678"'),
        (Decimal("1.50"), '"1.50"'),
        ({"red"}, '["red"]'),
        (frozenset({1}), "[1]"),
        ((1, 2), "[1,2]"),
        (Pair(1, 2), "[1,2]"),
        (OrderedDict(a=1), '{"a":1}'),
        (Color.RED, '"red"'),
        (Point(1, NAIVE), '{"x":1,"at":"2026-01-02T03:04:05"}'),
        (Shouting(name="ann"), '{"name":"ANN"}'),
        ([Shouting(name="ann")], '[{"name":"ANN"}]'),
        (
            {"model": Shouting(name="ann"), "point": Point(1, NAIVE)},
            '{"model":{"name":"ANN"},"point":{"x":1,"at":"2026-01-02T03:04:05"}}',
        ),
        (BIG, str(BIG)),
        (-BIG, str(-BIG)),
        ({"n": [BIG]}, f'{{"n":[{BIG}]}}'),
        ("ü\n", '"ü\\n"'),
        (float("inf"), "null"),
        (None, "null"),
    ],
    ids=repr,
)
def test_what_goes_to_json(value: Any, text: str) -> None:
    assert dumps(value).decode() == text


def test_keys_that_are_no_strings_become_some() -> None:
    value = {1: "int", None: "none", 2.5: "float", Color.RED: "enum", UUID(int=1): "uuid", NAIVE: "time"}
    assert json.loads(dumps(value)) == {
        "1": "int",
        "null": "none",
        "2.5": "float",
        "red": "enum",
        "00000000-0000-0000-0000-000000000001": "uuid",
        "2026-01-02T03:04:05": "time",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(NAIVE, "2026-01-02T03:04:05", id="naive time"),
        pytest.param(float("nan"), None, id="nan"),
        pytest.param([float("-inf")], [None], id="infinity"),
        pytest.param({None: 1}, {"null": 1}, id="key None"),
        pytest.param({True: 1}, {"true": 1}, id="key True"),
    ],
)
def test_a_big_number_beside_it_changes_nothing(value: Any, text: Any) -> None:
    """A value is said in the same way, whichever encoder does the work; and what comes out is JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(dumps({"value": value}), parse_constant=refuse) == {"value": text}
    assert json.loads(dumps({"value": value, "n": BIG}), parse_constant=refuse) == {"value": text, "n": BIG}


@pytest.mark.parametrize("at", [NAIVE, NAIVE.replace(tzinfo=UTC), NAIVE.replace(tzinfo=timezone(timedelta(hours=-5)))])
def test_a_time_is_said_in_one_way_wherever_it_is(at: datetime) -> None:
    """In a dict, a key, a model, a dataclass, and beside a big number: else a page shows two of them hours apart."""
    text = at.isoformat().replace("+00:00", "Z")
    alone = {"at": at, at: "at", "model": Model(name="ann", at=at), "point": Point(1, at)}
    for value in (alone, {**alone, "n": BIG}):
        found = json.loads(dumps(value))
        assert found["at"] == found["model"]["at"] == found["point"]["at"] == text
        assert found[text] == "at"


def test_a_model_is_encoded_as_pydantic_does() -> None:
    found = json.loads(dumps(Model(name="ann", at=NAIVE, tags={"a"})))
    assert found["price"] == "1.50"
    assert found["tags"] == ["a"]
    assert found == json.loads(Model(name="ann", at=NAIVE, tags={"a"}).model_dump_json())


# What it can't


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("the app's own mistake")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(object(), id="object"),
        pytest.param({"a": object()}, id="object inside"),
        pytest.param(lambda: None, id="function"),
        pytest.param(Color, id="class"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param({"a": "\ud800"}, id="surrogate inside"),
        pytest.param({"\ud800": 1}, id="surrogate as key"),
        pytest.param({"a": b"\xff"}, id="bytes that are no text"),
        pytest.param(cyclic(), id="cycle"),
        pytest.param(nested(500), id="deep"),
        pytest.param(nested(100_000), id="very deep"),
        pytest.param(Failing(), id="model that fails"),
        pytest.param([Failing(), BIG], id="model that fails inside"),
        pytest.param(Unshowable(), id="unshowable"),
    ],
)
def test_what_can_not_be_encoded_is_refused_by_name(message: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^message: ") as caught:
        encode(message)
    error = caught.value
    assert error.argument == "message"
    assert error.problem
    assert error.accepted
    assert isinstance(error, HubbubError)
    assert isinstance(error, ValueError)
    assert len(str(error)) < 1000


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.binary() | st.text() | st.floats() | st.complex_numbers() | st.none() | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
        ),
        max_leaves=8,
    )
)
def test_encode_gives_something_or_names_the_argument(message: Any) -> None:
    with may_refuse("message"):
        decode(encode(message))


# What comes in


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:20]}...{text[-10:]} of {len(text)}"


def deep(levels: int, innermost: str = "") -> str:
    return "[" * levels + innermost + "]" * levels


WIDE = st.integers() | st.integers(-(2**64), -(2**63)) | st.integers(2**63, 2**65) | st.integers(2**1000, 2**1001)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | WIDE | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    ),
    st.booleans(),
)
def test_what_comes_in_is_what_was_said_but_for_half_of_a_pair(value: Any, as_bytes: bool) -> None:
    text = json.dumps(value)  # with halves of pairs as escapes, as JSON.stringify writes them
    found = loads_from_client(text.encode() if as_bytes else text)
    assert repr(found) == repr(mended(value))
    assert loads(encode({"said": found}).data) == {"said": found}


def mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [mended(each) for each in value]
    if isinstance(value, dict):
        return {mended(key): mended(each) for key, each in value.items()}
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -(2**63) - 1),
        ("1700000000000000000", 1_700_000_000_000_000_000),
        (f'{{"n":[{10**400}]}}', {"n": [10**400]}),
        ("1" * 4300, int("1" * 4300)),
        ("123456789012345678901234567890.5", 123456789012345678901234567890.5),
        ("12345678901234567890e3", 12345678901234567890e3),
        ("1e-999", 0.0),
        ('"12345678901234567890"', "12345678901234567890"),
        (r'"\ud83d"', "\ufffd"),
        (r'"\ude00x"', "\ufffdx"),
        (r'"\uD83D\uD83D\uDE00"', "\ufffd😀"),
        (r'"\ud83d\n"', "\ufffd\n"),
        (r'"\\ud83d \ud83d \\\ud83d"', "\\ud83d \ufffd \\\ufffd"),
        (r'{"\ud83d": [18446744073709551616, "\ud83d\ude00"]}', {"\ufffd": [2**64, "😀"]}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        (deep(MAX_DEPTH), json.loads(deep(MAX_DEPTH))),
        (deep(MAX_DEPTH, str(2**64)), json.loads(deep(MAX_DEPTH, str(2**64)))),
    ],
    ids=shortened,
)
def test_what_comes_in_can_be_sent_on(text: str, value: Any) -> None:
    for data in (text, text.encode(), f" {text}\n"):
        found = loads_from_client(data)
        assert repr(found) == repr(value)
        assert json.loads(encode({"type": "said", "data": {"message": found}}).data)["data"]["message"] == value
        assert decode(encode([found])) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        r'["\ud83d", 1e999]',
        r'["\ud83d", NaN]',
        f"[{2**64}, NaN]",
        f"[{10**400}, -1e999]",
        f"{10**400}.5",
        "01",
        "9" * 4301,
        '"\\ud83"',
        r'"\ud8zz"',
        '"\\ud8',
        '["\\ud8"]',
        '["\\ud8","0"]',
        '"\\ud83d\n"',
        "\ufeff1",
        b'"\xed\xa0\xbd"',
        b'\xff\xfe"\x00a\x00"\x00',
        "\ud83d",
    ],
    ids=shortened,
)
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^the message is not JSON: .") as caught:
        loads_from_client(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        deep(MAX_DEPTH + 1),
        deep(MAX_DEPTH + 1, str(2**64)),
        deep(MAX_DEPTH + 1, r'"\ud83d"'),
        deep(254),
        deep(255),
        deep(1000, str(2**64)),
        '{"a":' * 300 + "1" + "}" * 300,
        "[[]," * 300 + "1" + "]" * 300,
    ],
    ids=shortened,
)
def test_what_is_nested_deeper_than_can_be_sent_on_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^the message is nested over {MAX_DEPTH} levels$"):
        loads_from_client(text)


@pytest.mark.parametrize(
    "text", [deep(1024), deep(100_000), deep(5000, str(2**64)), deep(5000, r'"\ud83d"')], ids=shortened
)
def test_what_is_nested_out_of_all_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the message is (not JSON: depth limit|nested over)"):
        loads_from_client(text)


def test_brackets_that_do_not_nest_are_no_depth() -> None:
    assert loads_from_client("[" + "[]," * 5000 + '"' + "[" * 5000 + '"]')[-1] == "[" * 5000


# `Message` says what can be sent, to type checkers


def test_what_type_checkers_accept_can_be_sent() -> None:
    for message in messages(Typed(text="hello"), {"from": "json"}):
        assert encode(message).data


@pytest.mark.parametrize("mapping", [WebSocket({"type": "websocket"}, None, None), MappingProxyType({}), UserDict()])  # type: ignore[arg-type]
def test_mappings_that_type_checkers_refuse_can_not_be_sent(mapping: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^message: can't be encoded as JSON"):
        encode(mapping)
