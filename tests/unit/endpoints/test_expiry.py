"""When tokens and permissions end."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from hubbub.claims import Claims
from hubbub.endpoints.expiry import end_of


@pytest.mark.parametrize(
    ("exp", "ends_at"),
    [
        (2_000_000_000, 2e9),
        (2_000_000_000.5, 2e9),
        ("2000000000", 2e9),
        (datetime.fromtimestamp(2e9, UTC), 2e9),
        (10**400, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("soon", None),
        ([2_000_000_000], None),
        (None, None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_end_of_a_user_is_read_like_the_claim_of_a_token(exp: Any, ends_at: float | None) -> None:
    for user in ({"exp": exp}, Claims({"exp": exp}), SimpleNamespace(exp=exp)):
        assert end_of(user) == ends_at


@pytest.mark.parametrize("user", ["ann", 7, None, {"sub": "ann"}])
def test_a_user_without_an_end_never_ends(user: Any) -> None:
    assert end_of(user) is None
