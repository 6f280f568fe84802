"""The answers to messages that are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException

from ..codec import dumps
from ..errors import HubbubError, InvalidArgument

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MAX_PROBLEMS: Final = 10
_MAX_PART_CHARS: Final = 200
_TEMPORARY: Final = frozenset((408, 425, 429))
UNPROCESSABLE: Final = 422


class Refusal(NamedTuple):
    """The answer to a message that is not served.

    Attributes:
        code: The number that the client is told: the HTTP status, where there is one.
        reason: One line for the developer of the client.
        temporary: Whether the same message may be served later.
    """

    code: int
    reason: str
    temporary: bool


class MessageInvalid(HubbubError, ValueError):
    """A client's message does not fit its function; nothing of the app has run. It is answered with 422.

    Args:
        problems: The errors as Pydantic lists them, or a sentence. Each is told with its location and its reason, and
            without the input.
    """

    def __init__(self, problems: Sequence[Mapping[str, Any]] | str) -> None:
        super().__init__(problems if isinstance(problems, str) else _line(problems))


class RoomUnknown(HubbubError, LookupError):
    """A room's name matches a rule, but its parts are not what the function takes: no such room can exist.

    That is so for ``doc:abc`` where the function says ``id: int``; and for ``doc:07``, since 7 is another text: two
    names for one thing would make two rooms under one permission.
    """


class ReplyInvalid(HubbubError, TypeError):
    """A function returned a value that its return annotation does not allow. That is a fault of the app."""


def refusal_of(error: BaseException) -> Refusal | None:
    """The answer that an error stands for.

    Args:
        error: The exception that a function or one of its dependencies raised.

    Returns:
        None for every error that is no answer: a fault of the app, which is not told to clients, or an error that the
        caller treats in its own way (`RoomUnknown`, a ``WebSocketException``).
    """
    if isinstance(error, MessageInvalid):
        return Refusal(UNPROCESSABLE, str(error), temporary=False)
    if isinstance(error, HTTPException):
        status: object = error.status_code  # whatever the app wrote
        if isinstance(status, int) and 400 <= status < 2000:  # below is no error, or means another
            temporary = 500 <= status < 600 or status in _TEMPORARY
            return Refusal(int(status), _detail(error.detail), temporary)
    return None


def _detail(detail: object) -> str:
    if isinstance(detail, str):
        return detail.encode(errors="replace").decode()
    try:
        return dumps(detail).decode()
    except InvalidArgument:
        return str(detail)


def _line(problems: Sequence[Mapping[str, Any]]) -> str:
    told = [_problem(each) for each in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        told.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(told)


def _problem(error: Mapping[str, Any]) -> str:
    # A location may hold keys of the client's, and a reason what it sent: both are bounded, and stay on the line.
    place = _bounded(".".join(map(str, error.get("loc", ()))))
    reason = _bounded(str(error.get("msg", "is not valid")))
    return f"{place}: {reason}" if place else reason


def _bounded(text: str) -> str:
    text = _CONTROLS.sub(" ", text.encode(errors="replace").decode())
    return text if len(text) <= _MAX_PART_CHARS else f"{text[:_MAX_PART_CHARS]}…"
