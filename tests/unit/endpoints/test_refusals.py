"""Errors that are answers: which code and which line a client is told."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from fastapi import HTTPException, WebSocketException
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from hubbub.endpoints.refusals import MessageInvalid, Refusal, RoomUnknown, refusal_of


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (HTTPException(403, "join first"), Refusal(403, "join first", False)),
        (StarletteHTTPException(404), Refusal(404, "Not Found", False)),
        (HTTPException(409, {"a": [1]}), Refusal(409, '{"a":[1]}', False)),
        (HTTPException(400, object()), None),
        (HTTPException(1001, "of the app"), Refusal(1001, "of the app", False)),
        (MessageInvalid("not JSON"), Refusal(422, "not JSON", False)),
        (RoomUnknown("x"), None),
        (WebSocketException(1008), None),
        (HTTPException(204), None),
        (HTTPException(109, "means a token that expired"), None),
        (HTTPException(3000, "would close"), None),
        (ValueError("a fault"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_errors_and_the_answers_they_are(error: BaseException, refusal: Refusal | None) -> None:
    found = refusal_of(error)
    if isinstance(error, HTTPException) and type(error.detail) is object:  # can't be JSON: its repr
        assert found is not None
        assert found.reason.startswith("<object")
    else:
        assert found == refusal


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_some_statuses_are_temporary(status: int) -> None:
    refusal = refusal_of(HTTPException(status, "later"))
    assert refusal == Refusal(status, "later", True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 600, 1999])
def test_others_are_not(status: int) -> None:
    refusal = refusal_of(HTTPException(status, "never"))
    assert refusal is not None
    assert not refusal.temporary


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: int = 0


def problems(sent: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Strict.model_validate(sent)
    return str(MessageInvalid([dict(each) for each in caught.value.errors()]))


def test_the_line_is_bounded_and_on_one_line_whatever_a_client_sends() -> None:
    text = problems({"a\nb\x00\u2028" + "x" * 10_000: 1, **{f"k{number}": 1 for number in range(100)}})
    assert text.splitlines() == [text]
    assert text.isprintable()
    assert len(text) < 5_000
    assert text.endswith("; and 91 more")


def test_the_line_does_not_repeat_what_was_sent() -> None:
    assert problems({"id": "secret"}) == "id: Input should be a valid integer, unable to parse string as an integer"
    assert problems(5).startswith("Input should be a valid dictionary")


def test_half_of_an_emoji_in_a_key_can_be_told() -> None:
    problems({"\ud83d": 1}).encode()


@pytest.mark.parametrize("status", [403.0, "403", None, 403.5])
def test_a_status_that_is_no_int_is_a_fault_of_the_app(status: Any) -> None:
    assert refusal_of(HTTPException(status, "no")) is None


def test_a_status_of_an_enum_is_its_number() -> None:
    refusal = refusal_of(HTTPException(HTTPStatus.FORBIDDEN, "no"))
    assert refusal is not None
    assert type(refusal.code) is int
