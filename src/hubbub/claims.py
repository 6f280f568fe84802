"""The claims of verified tokens, and the reasons for which a token is refused.

`hubbub.auth` verifies the tokens of requests and connections. An endpoint has the tokens of its clients' subscriptions
verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from .close import CloseCode, reason_text
from .errors import HubbubError

_LAST_SECOND: Final = 253_402_300_799  # the end of the year 9999, the latest time that a datetime can hold


class InvalidToken(HubbubError):
    """A token is missing or not acceptable.

    Attributes:
        cause: The problem, in a few fixed words that contain nothing of the token.
        code: The code to close a WebSocket with.
        reason: The reason for the client. After ``token expired``, clients reconnect with a new token.
        expired: Whether the token was good once, so that a new one may be.
    """

    def __init__(self, cause: str, close_code: CloseCode = CloseCode.UNAUTHORIZED) -> None:
        self.cause = cause
        self.code: int = close_code.code
        self.expired: bool = close_code is CloseCode.TOKEN_EXPIRED
        reason = f"{close_code.reason}: {cause}" if close_code is CloseCode.UNAUTHORIZED else close_code.reason
        self.reason: str = reason_text(reason)
        super().__init__(self.reason)


class KeyUnavailable(HubbubError):
    """The key to verify a token is unavailable, because the key function failed. The client is not at fault.

    Attributes:
        code: The code to close a WebSocket with: 1013, try again later.
        reason: The reason for the client.
    """

    code = 1013
    reason = "authentication is unavailable"


class Claims(Mapping[str, Any]):
    """The claims of a verified token: an immutable mapping.

        claims["name"], claims.get("scope"), claims.sub

    Tests can create one directly: ``Claims({"sub": "ann", "name": "Ann"})``. The class verifies nothing. Its ``repr``
    shows only the subject.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._claims = dict(claims)

    def __getitem__(self, name: str) -> Any:
        return self._claims[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._claims)

    def __len__(self) -> int:
        return len(self._claims)

    def __repr__(self) -> str:
        return f"Claims(sub={self._claims.get('sub')!r})"

    @property
    def sub(self) -> str:
        """The subject of the token: the id of the user.

        Raises:
            KeyError: The token has no such claim. ``JWTAuth`` requires it by default.
        """
        return str(self._claims["sub"])

    @property
    def expires_at(self) -> datetime | None:
        """When the token expires, in UTC, without leeway; None if it never does."""
        expiry = expiry_of(self._claims)
        return None if expiry is None else datetime.fromtimestamp(expiry, UTC)


def expiry_of(claims: Mapping[str, Any]) -> float | None:
    """Returns ``exp`` as PyJWT reads it, limited to the range of a datetime."""
    exp = claims.get("exp")
    return None if exp is None else float(min(int(exp), _LAST_SECOND))
