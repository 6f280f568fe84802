"""The codes of the Centrifugo protocol, and those of hubbub and of apps in them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hubbub.close import MAX_REASON_BYTES, CloseCode, is_sendable
from hubbub.protocols.centrifugo.codes import (
    APP_ERROR_CODES,
    DisconnectCode,
    ErrorCode,
    UnsubscribeCode,
    closed_as,
    reconnects,
    safe_reason,
)
from hubbub.protocols.centrifugo.messages import Error, Unsubscribe

STAYS_AWAY = {
    CloseCode.NORMAL, CloseCode.INVALID_DATA, CloseCode.UNAUTHORIZED, CloseCode.ORIGIN, CloseCode.KICKED,
    CloseCode.INVALID_NAME, CloseCode.TOO_MANY_USER_CONNECTIONS, CloseCode.TOO_MANY_ADDRESS_CONNECTIONS,
    CloseCode.TOO_MANY_ROOMS, CloseCode.ROOM_FULL, CloseCode.MESSAGE_TOO_BIG,
}  # fmt: skip


@pytest.mark.parametrize("cause", CloseCode)
def test_an_sdk_reconnects_where_that_makes_sense(cause: CloseCode) -> None:
    code, reason = closed_as(cause.code, cause.reason)
    assert 3000 <= code <= 3999
    assert reason == (cause.reason or {each.code: each.reason for each in DisconnectCode}[code])
    assert reconnects(code) == (cause not in STAYS_AWAY)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (CloseCode.ORIGIN, 3507),
        (CloseCode.KICKED, 3503),
        (CloseCode.TOKEN_EXPIRED, 3005),
        (CloseCode.UNAUTHORIZED, 3500),
        (CloseCode.INTERNAL_ERROR, 3004),
        (CloseCode.SERVICE_RESTART, 3001),
        (CloseCode.GOING_AWAY, 3001),
        (CloseCode.SLOW_CONSUMER, 3008),
        (CloseCode.BROKER_UNAVAILABLE, 3004),
        (CloseCode.INVALID_DATA, 3509),
        (CloseCode.RATE_LIMITED, 3013),
        (CloseCode.MESSAGE_TOO_BIG, 3501),
    ],
)
def test_a_cause_has_the_code_that_sdks_know(cause: CloseCode, code: int) -> None:
    assert closed_as(cause.code, cause.reason).code == code


@pytest.mark.parametrize(
    ("code", "expected"),
    [(1000, 3503), (1002, 3501), (1003, 3501), (1007, 3501), (1008, 3507), (1011, 3004), (1012, 3001), (1013, 3004)],
)
def test_a_code_of_rfc_6455_is_translated(code: int, expected: int) -> None:
    assert closed_as(code, "says the app") == (expected, "says the app")


@pytest.mark.parametrize("code", [3000, 3499, 3500, 4000, 4401, 4499, 4500, 4999])
def test_a_code_of_the_app_from_3000_stays(code: int) -> None:
    assert closed_as(code, "why") == (code, "why")
    assert closed_as(code).code == code
    assert closed_as(code).reason  # without one, the JavaScript SDK reconnects whatever the code


@given(st.integers(-10, 70_000), st.text())
@example(1005, "")
@example(1006, "")
@example(5000, "")
def test_every_code_and_reason_becomes_a_sendable_code_over_3000(code: int, reason: str) -> None:
    closed = closed_as(code, reason)
    assert is_sendable(closed.code)
    assert closed.code >= 3000
    assert closed.reason
    assert len(closed.reason.encode()) <= MAX_REASON_BYTES


JSON_TEXTS = [
    "1",
    "-1.5",
    '"text"',
    "null",
    "true",
    "{}",
    '{"code":4000,"reason":"x","reconnect":true}',
    " [1] ",
    "1e999",
]


@pytest.mark.parametrize("text", [*JSON_TEXTS, '"' + "x" * 121 + '"', "1" * 123, '"' + "ü" * 60 + '"'])
def test_a_reason_is_never_json(text: str) -> None:
    reason = safe_reason(text)
    assert reason == text.encode()[:122].decode(errors="ignore") + "."
    assert len(reason.encode()) <= MAX_REASON_BYTES
    with pytest.raises(ValueError, match=r".*"):
        json.loads(reason)
    assert closed_as(4000, text).reason == reason
    assert closed_as(1008, text).reason == reason
    assert DisconnectCode.BAD_REQUEST.closed(text).reason == reason


@pytest.mark.parametrize("text", ["", "unauthorized", "1 room too many", "{", "x" * 200, "ü" * 100])
def test_any_other_reason_stays_as_far_as_it_fits(text: str) -> None:
    assert text.startswith(safe_reason(text))
    assert len(safe_reason(text)) >= min(len(text), 61)


def test_the_reasons_of_the_protocol_stay() -> None:
    for code in DisconnectCode:
        assert code.closed() == (code.code, code.reason)
        assert safe_reason(code.reason) == code.reason != ""
        assert code.reconnects == (code.code < 3500)


def test_errors_have_a_message_and_say_whether_they_are_temporary() -> None:
    assert [each.code for each in ErrorCode] == list(range(100, 114))
    assert {each.code for each in ErrorCode if each.temporary} == {100, 111, 113}
    assert ErrorCode.PERMISSION_DENIED.error() == Error(103, "permission denied", False)
    assert ErrorCode.INTERNAL.error("try later") == Error(100, "try later", True)
    assert not set(APP_ERROR_CODES) & {each.code for each in ErrorCode}
    assert 422 in APP_ERROR_CODES


def test_an_sdk_subscribes_again_from_code_2500() -> None:
    assert [(each.code, each.resubscribes) for each in UnsubscribeCode] == [
        (2000, False), (2500, True), (2501, True), (2502, True),
    ]  # fmt: skip
    assert UnsubscribeCode.EXPIRED.push() == Unsubscribe(2501, "subscription expired")
