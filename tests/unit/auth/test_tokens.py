"""Where a token is found, and which one counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.auth.tokens import find_token, offered_subprotocol


def scope(
    kind: str = "websocket",
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
    subprotocols: list[str] | None = None,
    query: bytes = b"",
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": kind, "headers": headers or [], "query_string": query}
    if kind == "websocket":
        found["subprotocols"] = subprotocols or []
    return found


HEADER = [(b"authorization", b"Bearer from-header")]
PAIR = ["bearer", "from-subprotocol"]
COOKIE = [(b"cookie", b"theme=dark; session=from-cookie")]
QUERY = b"room=lobby&token=from-query"


def find(where: dict[str, Any]) -> tuple[str, str] | None:
    return find_token(where, cookie="session", query="token")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param(scope(headers=HEADER), ("from-header", "header"), id="header"),
        pytest.param(scope(subprotocols=PAIR), ("from-subprotocol", "subprotocol"), id="subprotocol"),
        pytest.param(scope(headers=COOKIE), ("from-cookie", "cookie"), id="cookie"),
        pytest.param(scope(query=QUERY), ("from-query", "query"), id="query"),
        pytest.param(scope("http", headers=HEADER), ("from-header", "header"), id="http-header"),
        pytest.param(scope("http", headers=COOKIE), ("from-cookie", "cookie"), id="http-cookie"),
        pytest.param(scope("http", query=QUERY), None, id="http-query-is-not-read"),
        pytest.param(scope(), None, id="nothing"),
        pytest.param({"type": "websocket"}, None, id="bare-scope"),
    ],
)
def test_each_source(where: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert find(where) == expected


@pytest.mark.parametrize(
    ("where", "source"),
    [
        pytest.param(scope(headers=HEADER + COOKIE, subprotocols=PAIR, query=QUERY), "header", id="header-first"),
        pytest.param(scope(headers=COOKIE, subprotocols=PAIR, query=QUERY), "subprotocol", id="then-subprotocol"),
        pytest.param(scope(headers=COOKIE, query=QUERY), "cookie", id="then-cookie"),
        pytest.param(scope(headers=COOKIE + HEADER), "header", id="not-the-order-of-headers"),
    ],
)
def test_the_first_source_in_order_counts(where: dict[str, Any], source: str) -> None:
    found = find(where)
    assert found is not None
    assert found[1] == source


@pytest.mark.parametrize("where", [scope(headers=COOKIE), scope(query=QUERY)], ids=["cookie", "query"])
def test_cookie_and_query_are_off_unless_named(where: dict[str, Any]) -> None:
    assert find_token(where) is None


@pytest.mark.parametrize(
    "value",
    [b"bearer t", b"BEARER t", b"Bearer   t", b" Bearer t "],
    ids=["lower", "upper", "spaces", "around"],
)
def test_the_scheme_is_read_as_rfc_9110_has_it(value: bytes) -> None:
    assert find(scope(headers=[(b"Authorization", value)])) == ("t", "header")


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(scope(headers=[(b"authorization", b"Basic dXNlcjpwYXNz"), *COOKIE]), id="basic"),
        pytest.param(scope(headers=[(b"authorization", b"Bearer"), *COOKIE]), id="bearer-alone"),
        pytest.param(scope(headers=[(b"authorization", b"Bearer "), *COOKIE]), id="bearer-empty"),
        pytest.param(scope(headers=[(b"authorization", b"Bearerx t"), *COOKIE]), id="other-scheme"),
        pytest.param(scope(headers=COOKIE, subprotocols=["bearer"]), id="pair-without-token"),
        pytest.param(scope(headers=COOKIE, subprotocols=["chat", "bearer"]), id="bearer-last"),
        pytest.param(scope(headers=COOKIE, subprotocols=["chat", "t"]), id="other-subprotocols"),
    ],
)
def test_what_is_no_token_leaves_it_to_the_next_source(where: dict[str, Any]) -> None:
    assert find(where) == ("from-cookie", "cookie")


def test_the_pair_may_stand_among_other_subprotocols() -> None:
    where = scope(subprotocols=["chat.v1", "bearer", "t", "chat.v2"])
    assert find(where) == ("t", "subprotocol")
    assert offered_subprotocol(where) == "bearer"


@pytest.mark.parametrize("subprotocols", [[], ["chat"], ["Bearer", "t"]], ids=["none", "other", "case"])
def test_bearer_is_answered_only_where_it_was_offered(subprotocols: list[str]) -> None:
    assert offered_subprotocol(scope(subprotocols=subprotocols)) is None


def test_a_cookie_is_found_in_the_second_of_two_headers() -> None:
    assert find(scope(headers=[(b"cookie", b"theme=dark"), *COOKIE])) == ("from-cookie", "cookie")


def test_a_query_parameter_is_percent_decoded_and_the_first_that_has_a_value_counts() -> None:
    assert find(scope(query=b"token=&token=a%2Eb&token=c")) == ("a.b", "query")


def test_repr_hides_the_token() -> None:
    assert repr(find_token(scope(headers=HEADER))) == "Presented(source='header')"


@given(value=st.binary(max_size=100), query=st.binary(max_size=100), offered=st.lists(st.text(max_size=10)))
def test_no_handshake_makes_it_raise(value: bytes, query: bytes, offered: list[str]) -> None:
    find(scope(headers=[(b"authorization", value), (b"cookie", value)], subprotocols=offered, query=query))
