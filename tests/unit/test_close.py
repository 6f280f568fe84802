"""The catalogue of close codes."""

from __future__ import annotations

import pytest
from websockets.frames import Close
from websockets.frames import CloseCode as KnownCode

from hubbub import CloseCode, InvalidArgument
from hubbub.arguments import close_code
from hubbub.protocols.centrifugo.codes import closed_as, reconnects


def client_returns(cause: CloseCode) -> bool:
    """Whether the client of an endpoint connects again after this close, given that it can get a new token."""
    return reconnects(closed_as(cause.code, cause.reason).code)


@pytest.mark.parametrize("cause", CloseCode, ids=lambda cause: cause.name)
def test_every_close_can_go_into_a_close_frame(cause: CloseCode) -> None:
    """RFC 6455 section 5.5: a control frame has at most 125 bytes, two of which are the code."""
    assert len(cause.reason.encode()) <= 123
    assert cause.code in set(KnownCode)
    assert Close.parse(Close(cause.code, cause.reason).serialize()) == Close(cause.code, cause.reason)
    assert close_code(cause.code) == cause.code


def test_no_two_causes_are_one() -> None:
    """Same code and reason would make an enum's members aliases of each other."""
    assert len(CloseCode.__members__) == len(list(CloseCode))
    assert len({(cause.code, cause.reason) for cause in CloseCode}) == len(list(CloseCode))


@pytest.mark.parametrize(
    ("name", "code", "reason", "retry"),
    [
        ("NORMAL", 1000, "", False),
        ("GOING_AWAY", 1001, "", True),
        ("INVALID_DATA", 1007, "too many invalid messages", False),
        ("UNAUTHORIZED", 1008, "unauthorized", False),
        ("TOKEN_EXPIRED", 1008, "token expired", True),
        ("MESSAGE_TOO_BIG", 1009, "message too big", False),
        ("INTERNAL_ERROR", 1011, "", True),
        ("SERVICE_RESTART", 1012, "", True),
        ("IDLE", 1013, "idle", True),
        ("SLOW_CONSUMER", 1013, "slow consumer", True),
        ("TOO_MANY_CONNECTIONS", 1013, "too many connections", True),
    ],
)
def test_what_clients_rely_on_stays(name: str, code: int, reason: str, retry: bool) -> None:
    cause = CloseCode[name]
    assert (cause.code, cause.reason, client_returns(cause)) == (code, reason, retry)


def test_causes_of_one_code_differ_in_the_reason() -> None:
    by_code: dict[int, list[str]] = {}
    for cause in CloseCode:
        by_code.setdefault(cause.code, []).append(cause.reason)
    for reasons in by_code.values():
        assert len(set(reasons)) == len(reasons)
        assert len(reasons) == 1 or all(reasons)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1012, 1014, 3000, 4999])
def test_codes_that_an_app_may_send(code: int) -> None:
    assert close_code(code) == code


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, -1, True, "1000", 1000.0, None]
)
def test_codes_that_no_app_may_send(code: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^code: "):
        close_code(code)
