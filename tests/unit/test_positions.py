"""Positions: what one is, and what an app passes as ``since``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub import InvalidArgument, Position
from hubbub.positions import (
    EPOCH_CHARS,
    as_position,
    new_epoch,
)

EPOCH = "abc-EF_8"
PLACE = Position(EPOCH, 12)


def test_epochs_are_random_and_of_one_size() -> None:
    epochs = {new_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    for epoch in epochs:
        assert len(epoch) == len(epoch.encode("ascii")) == EPOCH_CHARS == 8
        assert json.loads(f'"{epoch}"') == epoch


# What an app passes as since


@pytest.mark.parametrize(
    "value",
    [PLACE, (EPOCH, 12), [EPOCH, 12]],
)
def test_what_is_a_position(value: Any) -> None:
    assert as_position(value) == PLACE
    assert isinstance(as_position(value), Position)


@pytest.mark.parametrize(
    "value",
    [
        None, "", "abcdefgh", 12, True, b"ab", (), (EPOCH,), (12, EPOCH), (EPOCH, "12"), (EPOCH, -1), (EPOCH, 1.0),
        (EPOCH, True), (EPOCH, None), (EPOCH, 12, 13), (None, 12), {}, {"epoch": EPOCH, "offset": 12},
        {"epoch": EPOCH}, {"offset": 12}, {EPOCH: 12},
        {"epoch": 12, "offset": EPOCH}, ("\ud800", 12), ("e" * 65, 12), (EPOCH, 2**63),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_position(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^since: ") as caught:
        as_position(value)
    assert "Position(epoch, offset)" in caught.value.accepted
