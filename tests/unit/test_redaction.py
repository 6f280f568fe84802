"""What the server's log gets to see: no values of a query, no credentials, and no second line."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.redaction import ServerLogFilter, redact_query


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        (b"token=secret", b"token=***"),
        (b"a=1&token=secret&b=2", b"a=***&token=***&b=***"),
        (b"secret", b"***"),
        (b"token=", b"token=***"),
        (b"a=1=2&&=3", b"a=***&***&=***"),
        (b"%74oken=%73ecret", b"%74oken=***"),
    ],
)
def test_the_server_sees_the_names_of_a_query_and_the_app_all_of_it(query: bytes, seen: bytes) -> None:
    scope = {"type": "websocket", "query_string": query}
    inner = redact_query(scope)
    assert (scope["query_string"], inner["query_string"]) == (seen, query)
    assert inner is not scope


@pytest.mark.parametrize("scope", [{"query_string": b""}, {}])
def test_a_handshake_without_a_query_keeps_its_scope(scope: dict[str, Any]) -> None:
    before = dict(scope)
    assert redact_query(scope) is scope
    assert scope == before


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=20))
def test_no_value_of_a_query_is_left(name: bytes, value: bytes) -> None:
    scope = {"query_string": name + b"=" + b"SECRET" + value}
    redact_query(scope)
    assert b"SECRET" not in scope["query_string"]


def logged(level: int, text: str, *args: Any) -> str:
    """The line that a log of the server has after the filter."""
    record = logging.LogRecord("uvicorn.error", level, __file__, 1, text, args, None)
    assert ServerLogFilter().filter(record)
    return record.getMessage()


@pytest.mark.parametrize(
    "header", ["Authorization", "cookie", "Set-Cookie", "SEC-WEBSOCKET-PROTOCOL", "Proxy-Authorization"]
)
@pytest.mark.parametrize("direction", ["<", ">"])
def test_a_header_with_a_credential_is_hidden(header: str, direction: str) -> None:
    assert logged(logging.DEBUG, f"{direction} %s: %s", header, "secret") == f"{direction} {header}: ***"


def test_other_headers_and_the_path_are_seen_without_queries() -> None:
    assert logged(logging.DEBUG, "< %s: %s", "Host", "app.example") == "< Host: app.example"
    assert logged(logging.DEBUG, "< %s: %s", "Referer", "https://a.example/?token=secret") == (
        "< Referer: https://a.example/?***"
    )
    assert logged(logging.DEBUG, "< GET %s HTTP/1.1", "/ws?token=secret") == "< GET /ws?*** HTTP/1.1"
    assert logged(logging.DEBUG, "> HTTP/1.1 %d %s", 101, "Switching Protocols") == "> HTTP/1.1 101 Switching Protocols"


def test_a_frame_is_shown_without_the_query_that_it_may_hold() -> None:
    class Frame:
        def __str__(self) -> str:
            return "TEXT '/ws?token=secret' [16 bytes]"

    assert logged(logging.DEBUG, "< %s", Frame()) == "< TEXT '/ws?***"


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO, logging.ERROR])
def test_what_a_client_wrote_stays_on_one_line(level: int) -> None:
    line = logged(level, '%s - "WebSocket %s" [accepted]', "::1\r\nINFO all is well", "/ws\x1b[2J")
    assert line == r'::1\r\nINFO all is well - "WebSocket /ws\x1b[2J" [accepted]'


def test_lines_that_are_not_of_a_handshake_keep_their_arguments() -> None:
    assert logged(logging.INFO, "%s: %s", "cookie", "jar?") == "cookie: jar?"
    assert logged(logging.INFO, "started %d of %s", 1, ("a", "b")) == "started 1 of ('a', 'b')"
    assert logged(logging.INFO, "100 %") == "100 %"
    assert logged(logging.INFO, "< %s", "2 files?") == "< 2 files?"


def test_a_line_with_named_arguments_passes() -> None:
    assert logged(logging.DEBUG, "< %(name)s", {"name": "value"}) == "< value"
