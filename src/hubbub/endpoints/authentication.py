"""The authentication of one client: when it connects, and when it replaces its token.

The ``auth=`` dependency of the endpoint decides, for a Request that is made from the handshake. A token that came in a
command can be replaced by a ``refresh``, up to `REFRESH_GRACE_S` after its end. The token of a handshake can't: the
socket ends with it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException

from ..claims import Claims
from ..names import UserId
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode
from ..protocols.centrifugo.messages import RefreshRequest, RefreshResult
from .client import Client, Ended, Refused
from .expiry import end_of, is_past_grace, ttl_s

VERSION: Final = "hubbub"


class Identity(NamedTuple):
    """The user that a client is.

    Attributes:
        user: The value of the ``auth=`` dependency.
        user_id: The id of the user; None if the client is anonymous.
        ends_at: When the token of the command expires. None for never, or if the token came in the handshake.
    """

    user: Any = None
    user_id: UserId | None = None
    ends_at: float | None = None


class Authentication:
    """Authenticates one client.

    Args:
        client: The client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ends_at: float | None = None
        self._refreshing = asyncio.Lock()

    async def authenticate(self, token: str) -> Identity:
        """Runs the ``auth=`` dependency.

        Args:
            token: The token in the command; empty if there is none.

        Raises:
            Refused: The client may try again.
            Ended: The token is not valid, so the connection was closed.
        """
        identity = await self._identified(token)
        self._ends_at = identity.ends_at
        return identity

    async def refresh(self, request: RefreshRequest) -> RefreshResult:
        """Replaces the token, in place. One refresh runs at a time, so that a client can't start many at once."""
        async with self._refreshing:
            if self._client.socket.closed is not None:
                raise Ended
            return await self._refreshed(request)

    async def _refreshed(self, request: RefreshRequest) -> RefreshResult:
        client = self._client
        try:
            user, user_id, ends_at = await self._identified(request.token)
        except Refused as refused:
            if refused.error.code != ErrorCode.TOKEN_EXPIRED.code:
                raise
            await client.close(DisconnectCode.EXPIRED)
        if (None if user_id is None else str(user_id)) != client.session.user_id:
            await client.close(DisconnectCode.INVALID_TOKEN, "the token belongs to another user")
        assert client.caller is not None
        client.caller.user = user
        self._ends_at = ends_at
        return RefreshResult(client.session.id, VERSION, ends_at is not None, ttl_s(ends_at))

    def extend(self, ends_at: float | None) -> bool:
        """Changes when the token of a command expires. Returns False if there is none."""
        if self._ends_at is None:
            return False
        self._ends_at = ends_at
        return True

    def end_if_expired(self) -> None:
        """Closes the socket if the token expired, and was not replaced in time."""
        if is_past_grace(self._ends_at):
            self._client.socket.close_soon(DisconnectCode.EXPIRED.closed(), grace=False)

    async def _identified(self, token: str) -> Identity:
        client = self._client
        function = client.served.authenticate
        if function is None:
            return Identity()
        scope = client.websocket.scope
        if token:  # its expiry is watched here, not by the socket, because the client can replace it
            scope = {key: value for key, value in scope.items() if key != "hubbub"}
        try:
            user, user_id = await client.identify(function, scope, token or None)
        except HTTPException as error:
            if getattr(error, "expired", False) and token:
                raise Refused(ErrorCode.TOKEN_EXPIRED.error()) from error
            if error.status_code == 401:
                await client.close(DisconnectCode.INVALID_TOKEN, str(error.detail))
            if error.status_code == 403:
                await client.close(DisconnectCode.PERMISSION_DENIED, str(error.detail))
            raise Refused(await client.error(error, function)) from error
        except Exception as error:
            raise Refused(await client.error(error, function)) from error
        ends_at = end_of(user)
        if token:
            return Identity(user, user_id, ends_at)
        if client.socket.expires_at is None or not isinstance(user, Claims):  # a JWTAuth has set it, with its leeway
            client.socket.expire_at(ends_at)
        return Identity(user, user_id)
