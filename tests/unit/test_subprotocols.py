"""Which offered subprotocol a refusal answers."""

from __future__ import annotations

import jwt
import pytest

from hubbub.subprotocols import answer_to

TOKEN = jwt.encode({"sub": ""}, "a key of the tests, of more than 32 bytes", "HS256")


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ([], None),
        (["bearer", TOKEN], "bearer"),
        (["graphql-transport-ws"], "graphql-transport-ws"),
        ([TOKEN], None),
        ([TOKEN, "v12.stomp"], "v12.stomp"),
    ],
    ids=["none", "bearer", "a name", "a token", "a token and a name"],
)
def test_a_name_is_answered_and_no_token(offered: list[str], answer: str | None) -> None:
    assert answer_to(offered) == answer
