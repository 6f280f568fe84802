"""Subscription tokens: signed permissions of one user for one room, with the claims that Centrifugo gives them.

The app, or another service that has its key, makes such a token, and the client sends it with its subscribe command. A
rule of the endpoint asks for it (``@live.room(pattern, token=True)``). The claims:

* ``channel``: the room. It makes the token a subscription token: no other token may have it.
* ``sub``: the id of the user. Absent or empty for a client without a user.
* ``exp``: when the token, and the subscription, expire.
* ``expire_at``: when the subscription expires, instead; 0 for never.
* ``info``: the data of the client in this room, as in ``Grant(info=...)``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from ..arguments import client_info, timestamp
from ..claims import Claims, InvalidToken, expiry_of
from ..errors import InvalidArgument
from ..presence import Info


@runtime_checkable
class SubscriptionTokens(Protocol):
    """Verifies subscription tokens: a `JWTAuth`."""

    async def subscription_claims(self, token: str) -> Claims:
        """Verifies a subscription token, which has the claim ``channel``.

        Raises:
            InvalidToken: The token is not acceptable.
            KeyUnavailable: The key to verify it is unavailable.
        """
        ...


class SubscriptionToken(NamedTuple):
    """A subscription token that was verified.

    Attributes:
        claims: All claims.
        room: The room that it is for.
        user_id: The user that it is for; None for a client without a user.
        info: The data of the client in this room.
        ends_at: When the subscription expires, in seconds since the epoch; None for never.
    """

    claims: Claims
    room: object
    user_id: str | None
    info: Info
    ends_at: float | None


def subscription_token(claims: Claims) -> SubscriptionToken:
    """Reads the claims of a subscription token.

    Raises:
        InvalidToken: A claim has a wrong type.
    """
    try:
        info = client_info(claims.get("info"))
    except InvalidArgument:
        raise InvalidToken("bad info claim") from None
    try:
        ends_at = timestamp(claims.get("expire_at"))
    except InvalidArgument:
        raise InvalidToken("bad expire_at claim") from None
    if ends_at is None:
        ends_at = expiry_of(claims)
    user_id = None if claims.get("sub", "") == "" else claims.sub
    return SubscriptionToken(claims, claims.get("channel"), user_id, info, ends_at or None)
