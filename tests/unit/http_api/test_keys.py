from __future__ import annotations

import hmac
from typing import Any

import pytest

from hubbub import InvalidArgument
from hubbub.http_api.keys import Keys

OLD, NEW = "the-old-key-0123456789", "the-new-key-0123456789"


def test_each_key_is_accepted_and_nothing_else() -> None:
    for keys in (Keys([OLD, NEW]), Keys((OLD, NEW))):
        assert [keys.accepts(given) for given in (OLD, NEW)] == [True, True]
        for given in (None, "", OLD[:-1], OLD + NEW, OLD + " ", OLD.upper(), "ü", "\ud800", "\0"):
            assert not keys.accepts(given)
    assert Keys(OLD).accepts(OLD)
    assert not Keys(OLD).accepts(NEW)


def test_every_key_is_compared_in_constant_time_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def compare_digest(key: bytes, given: bytes) -> bool:
        compared.append(key)
        return compare(key, given)

    keys = Keys([OLD, NEW])
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    for given in (OLD, NEW, "neither"):
        compared.clear()
        keys.accepts(given)
        assert compared == [OLD.encode(), NEW.encode()]


BAD: list[Any] = ["", "fifteen-letters", [], [OLD, ""], [OLD, 5], b"bytes-of-some-length", {OLD}, 16 * "ab"]


@pytest.mark.parametrize("keys", BAD)
def test_a_key_that_can_be_guessed_or_sent_by_nobody_is_refused(keys: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"secrets\.token_urlsafe"):
        Keys(keys)


def test_no_text_of_the_keys_shows_one() -> None:
    keys = Keys([OLD, NEW])
    assert OLD not in f"{keys!r} {keys}"
