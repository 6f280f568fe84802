"""Reads the request for a stream of events: the rooms, the place to continue from, and whether a page may read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from ..close import CloseCode
from ..metrics.counters import Counters
from ..origin import OriginPolicy
from ..protocols.event_stream import MAX_ROOMS, Presented, presented

logger: Final = logging.getLogger("hubbub")

_ALLOWED_HEADERS: Final = b"authorization, cache-control, content-type, last-event-id"
_MAX_FIELDS: Final = 1000
_TYPE: Final = "text/event-stream"


class Engine(Protocol):
    """The part of a manager's engine that reading a request needs."""

    origins: OriginPolicy
    counters: Counters


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A request for a stream.

    Attributes:
        rooms: The rooms that it names, in their order.
        presented: The place from which it continues.
        headers: Headers of the answer.
        waits_for_ok: Whether the client gives up at any status but 200, as `EventSource` does.
    """

    rooms: Sequence[str]
    presented: Presented
    headers: Sequence[tuple[bytes, bytes]]
    waits_for_ok: bool


def check_origin(engine: Engine, headers: Headers) -> list[tuple[bytes, bytes]]:
    """Returns the headers with which a page of an allowed origin may read the answer.

    Raises:
        HTTPException: The page may not.
    """
    refusal = engine.origins.refusal(headers.raw)
    origin = headers.get("origin")
    if refusal is None and origin is None and headers.get("sec-fetch-site") == "cross-site":
        refusal = "another site opened it without asking to read it, as an image or a link does"
    if refusal is not None:
        logger.warning("refused a request of another site: %s", refusal)
        engine.counters.refused["origin"] += 1
        raise HTTPException(403, CloseCode.ORIGIN.reason)
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"vary", b"Origin"),
    ]


def preflight(engine: Engine, scope: Mapping[str, Any], method: str = "GET") -> dict[str, str]:
    """Returns the headers of the answer to a browser that asks whether a page may send a request.

    Args:
        engine: The engine of the manager.
        scope: The ASGI scope.
        method: The method of the request.

    Raises:
        HTTPException: The page may not.
    """
    answer = [
        *check_origin(engine, Headers(raw=list(scope["headers"]))),
        (b"access-control-allow-methods", method.encode()),
        (b"access-control-allow-headers", _ALLOWED_HEADERS),
        (b"access-control-max-age", b"600"),
        (b"allow", f"{method}, OPTIONS".encode()),
    ]
    return {name.decode(): value.decode("latin-1") for name, value in answer}


def read(engine: Engine, scope: Mapping[str, Any], rooms: Sequence[str] | None = None) -> StreamRequest:
    """Reads a request.

    Args:
        engine: The engine of the manager.
        scope: The ASGI scope.
        rooms: The rooms, if the app names them; None to take those that the client names.

    Raises:
        HTTPException: It can't be answered with a stream.
    """
    headers = Headers(raw=list(scope["headers"]))
    answer_headers = check_origin(engine, headers)
    if scope["method"] != "GET":
        raise HTTPException(405, "a stream of events is read with GET", headers={"Allow": "GET"})
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HTTPException(400, "a request for a stream of events has no body")
    try:
        query = parse_qs(
            scope.get("query_string", b"").decode(errors="strict"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise HTTPException(400, "the query string is not valid") from None
    if rooms is None:
        rooms = _rooms(query.get("room", []))
    since = headers.get("last-event-id") or query.get("since", [""])[-1]
    return StreamRequest(rooms, presented(since, len(rooms)), answer_headers, _TYPE in headers.get("accept", ""))


def _rooms(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise HTTPException(400, "name at least one room: ?room=… ($user is your own, and $everyone is everyone's)")
    if len(names) > MAX_ROOMS:
        raise HTTPException(400, f"{len(names)} rooms are too many for one stream: at most {MAX_ROOMS}")
    if len(set(names)) < len(names):
        raise HTTPException(400, "a room is named twice")
    return names
