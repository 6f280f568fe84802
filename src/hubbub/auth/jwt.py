"""JSON Web Tokens: `JWTAuth`, one FastAPI dependency for HTTP routes and WebSockets.

Three independent parts decide: `hubbub.auth.tokens` finds the token, `JWTAuth.verify` verifies it, and the dependency
sends a refusal to the client. The code follows RFC 7519 and the advice of RFC 8725: the accepted algorithms are listed
and of one family, the key fits them, and a token is verified before any claim is read.
"""

# No `from __future__ import annotations`: FastAPI up to 0.115 can't resolve string annotations of a callable object.

import inspect
import logging
import re
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, cast

import jwt
from fastapi import HTTPException
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketState

from ..claims import Claims, InvalidToken, KeyUnavailable, expiry_of
from ..close import CloseCode
from ..errors import InvalidArgument, shown
from ..names import user_name
from ..subprotocols import answer_to
from .keys import Key, KeyFunction, UnfitKey, checked_algorithms, checked_key, fitting_key
from .tokens import find_token, is_handshake, offered_subprotocol

logger: Final = logging.getLogger("hubbub.auth")

Refuse: TypeAlias = Literal["close", "http"]

_CLOCKS_S = 10.0  # more than the clocks of two machines usually differ
_MAX_TOKEN_CHARS = 7 * 1024  # servers reject a handshake with a line of over 8,192 bytes
_CHANNEL = "channel"
_CLAIM_NAME = re.compile(r"[!#-\[\]-~]{1,64}")  # appears in WWW-Authenticate
_NOT_IN_CHALLENGE = re.compile(r"[^ !#-\[\]-~]")  # RFC 6750 section 3

_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (jwt.InvalidSignatureError, "bad signature"),
    (jwt.ImmatureSignatureError, "not valid yet"),
    (jwt.InvalidAudienceError, "wrong audience"),
    (jwt.InvalidIssuerError, "wrong issuer"),
    (jwt.InvalidAlgorithmError, "algorithm not allowed"),
)


class Socket(Protocol):
    """The object that hubbub's middleware stores in ``scope["hubbub"]`` of a WebSocket."""

    def grant(self, *, subprotocol: str | None, expires_at: float | None) -> None:
        """Sets the subprotocol to answer with, and when the connection ends (seconds since the epoch)."""

    def count_refused(self, reason: str) -> None:
        """Counts a refusal."""

    def refuse_over_http(self) -> None:
        """Answers the refusal with its HTTP response."""


class TokenRefused(HTTPException):
    """The answer to a token that is not acceptable.

    Attributes:
        expired: Whether the token was good once, so that a new one may be.
    """

    def __init__(self, status_code: int, detail: str, headers: dict[str, str], *, expired: bool) -> None:
        super().__init__(status_code, detail, headers)
        self.expired: bool = expired


class _Refusal(NamedTuple):
    status: int
    headers: dict[str, str]
    code: int
    reason: str


class JWTAuth(SecurityBase):
    """A dependency that returns the `Claims` of the request's token, for HTTP routes and WebSockets alike.

    Create one per kind of token, at import time, and use it as ``Annotated[Claims, Depends(current_user)]``. The token
    is read from the ``Authorization`` header, the subprotocol pair ``bearer, <token>``, the configured cookie, or the
    configured query parameter; the first one present counts. On a WebSocket under `ConnectionManager.install`, the
    subprotocol is answered, and the connection closes when the token expires (plus the leeway for ``exp``).

    A token with the claim ``channel`` is the subscription token of an endpoint's client. It opens one room, and
    authenticates nobody.

    A refused request gets 401. A refused WebSocket is accepted and closed with 1008 and a reason, because browsers hide
    a refused handshake from the page. Each refusal is logged to ``hubbub.auth`` in one line, without the token.

    Args:
        key: The HMAC secret, the public key, or a function that returns the key for a token's header, such as a wrapper
            of ``PyJWKClient.get_signing_key``. The function runs in a worker thread. The header is not verified yet.
        algorithms: The accepted algorithms: HS256, HS384 and HS512 for secrets, or RS256, PS256, ES256, EdDSA and so on
            for public keys. The two families can't be mixed.
        audience: The accepted values of ``aud``; a token must contain one of them. With None, a token that names an
            audience is refused.
        issuer: The accepted values of ``iss``. With None, ``iss`` is not checked.
        leeway_s: Seconds by which clocks may differ, for ``exp``, ``nbf`` and ``iat``. The default is 10 for ``nbf``
            and ``iat``, because a client can't repair a token from a machine whose clock is ahead, and 0 for ``exp``,
            because a client can replace an expired token.
        cookie: The name of the cookie to read the token from. With None, cookies are ignored.
        query: The name of the query parameter to read the token from, on WebSockets. With None, the query is ignored.
        required: Claims that a token must have. Without ``"exp"``, a token may be valid forever. They hold for
            subscription tokens too, except for ``"sub"``, which that of an anonymous client lacks.
        refuse: ``"close"`` accepts a WebSocket, then closes it with a reason. ``"http"`` refuses the handshake with 401
            (403 if the server can't send a response).

    Raises:
        InvalidArgument: An argument is wrong, or the key does not fit the algorithms.
    """

    def __init__(
        self,
        key: "Key | KeyFunction",
        *,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway_s: float | None = None,
        cookie: str | None = None,
        query: str | None = None,
        required: Sequence[str] = ("exp", "sub"),
        refuse: Refuse = "close",
    ) -> None:
        self.model: HTTPBearer = HTTPBearer(bearerFormat="JWT")
        self.scheme_name: str = type(self).__name__
        self.models: dict[str, HTTPBearer | APIKey] = {self.scheme_name: self.model}
        self._algorithms = checked_algorithms(algorithms)
        self._find_key: KeyFunction | None = None
        self._key: Key = ""
        if callable(key):
            if inspect.iscoroutinefunction(key) or inspect.iscoroutinefunction(type(key).__call__):
                raise InvalidArgument("key", "is a coroutine function", "a plain function: it runs in a worker thread")
            self._find_key = key
        else:
            if isinstance(key, jwt.PyJWK) and key.algorithm_name in self._algorithms:
                self._algorithms = [key.algorithm_name]  # a JWK is for one algorithm
            self._key = checked_key(key, self._algorithms)
        self._audience = _checked_names("audience", audience)
        self._issuer = _checked_names("issuer", issuer)
        if leeway_s is not None and (
            isinstance(leeway_s, bool) or not isinstance(leeway_s, (int, float)) or not 0 <= leeway_s < float("inf")
        ):
            raise InvalidArgument("leeway_s", f"got {shown(leeway_s)}", "seconds, 0 or more, or None")
        self._leeway_s = _CLOCKS_S if leeway_s is None else leeway_s
        self._expiry_leeway_s = 0.0 if leeway_s is None else leeway_s
        for argument, name in (("cookie", cookie), ("query", query)):
            if name is not None and (not isinstance(name, str) or not name):
                raise InvalidArgument(argument, f"got {shown(name)}", "a name, or None for not looking there")
        for place, name in ((APIKeyIn.cookie, cookie), (APIKeyIn.query, query)):
            if name is not None:  # FastAPI knows one place per scheme; the document of an endpoint shows all of them
                model = APIKey.model_validate({"in": place, "name": name})
                self.models[f"{self.scheme_name}-{place.value}"] = model
        self._cookie = cookie
        self._query = query
        names = required if isinstance(required, Sequence) and not isinstance(required, str) else [None]
        if not all(isinstance(name, str) and _CLAIM_NAME.fullmatch(name) for name in names):
            raise InvalidArgument("required", f"got {shown(required)}", "a list of names of claims, in ASCII")
        if refuse not in ("close", "http"):
            raise InvalidArgument("refuse", f"got {shown(refuse)}", "'close' or 'http'")
        self._refuse = refuse
        self._required = list(required)
        self._required_to_subscribe = [_CHANNEL, *(each for each in required if each != "sub")]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(algorithms={self._algorithms!r})"

    async def __call__(self, connection: HTTPConnection) -> Claims:
        """The dependency: FastAPI calls it for each request and each WebSocket."""
        scope = connection.scope
        presented = find_token(scope, cookie=self._cookie, query=self._query)
        try:
            if presented is None:
                raise InvalidToken("no token")
            if self._find_key is None:
                claims = self.verify(presented.token)
            else:
                claims = await run_in_threadpool(self.verify, presented.token)
        except InvalidToken as error:
            logger.info("refused %s: %s%s", _where(scope), error.reason, _detail(error))
            challenge = "Bearer"  # without an error when there was no token: RFC 6750 section 3.1
            if presented is not None:
                description = _NOT_IN_CHALLENGE.sub("?", error.reason)
                challenge = f'Bearer error="invalid_token", error_description="{description}"'
            refusal = _Refusal(401, {"WWW-Authenticate": challenge}, error.code, error.reason)
        except KeyUnavailable as error:
            logger.warning("refused %s: no key to check its token with%s", _where(scope), _detail(error))
            refusal = _Refusal(503, {}, error.code, error.reason)
        else:
            if (socket := _socket(scope)) is not None:
                expiry = expiry_of(claims)
                socket.grant(
                    subprotocol=offered_subprotocol(scope),
                    expires_at=None if expiry is None else expiry + self._expiry_leeway_s,
                )
            return claims
        raise await self._refused(connection, refusal)

    def verify(self, token: str) -> Claims:
        """Verifies a token that arrived in another way, such as in a first message.

            claims = await run_in_threadpool(current_user.verify, message["token"])

        The key function, if there is one, is called in the current thread. If it may wait for the network, call
        `verify` in another thread, as above.

        Args:
            token: The token, in the compact form of three parts.

        Returns:
            The verified claims.

        Raises:
            InvalidToken: The token is not acceptable.
            KeyUnavailable: The key function failed.
        """
        claims = self._verified(token, self._required)
        if _CHANNEL in claims:  # whoever may read one room is not thereby its user everywhere: RFC 8725 section 3.12
            raise InvalidToken("it is a subscription token")
        return claims

    async def subscription_claims(self, token: str) -> Claims:
        """Verifies a subscription token. The caller compares ``sub`` and ``channel``.

        The rules of an endpoint with ``token=`` call it: ``@live.room("chat:{room}", token=True)``. Such a token has
        the claim ``channel``, which no other token may have. The key function, if there is one, runs in a worker
        thread.

        Args:
            token: The token, in the compact form of three parts.

        Returns:
            The verified claims.

        Raises:
            InvalidToken: The token is not acceptable.
            KeyUnavailable: The key function failed.
        """
        if self._find_key is None:
            return self._verified(token, self._required_to_subscribe)
        return await run_in_threadpool(self._verified, token, self._required_to_subscribe)

    def _verified(self, token: str, required: list[str]) -> Claims:
        if not isinstance(token, str) or not token.isascii() or len(token) > _MAX_TOKEN_CHARS:
            raise InvalidToken("malformed token")
        try:
            key = self._key if self._find_key is None else self._found_key(token, self._find_key)
            claims = jwt.decode(
                token,
                cast("Any", key),
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                # PyJWT requires a str as sub. Many tokens have an int, so it is checked below.
                options=cast("Any", {"require": required, "verify_sub": False}),
            )
        except jwt.ExpiredSignatureError:
            raise InvalidToken("expired", CloseCode.TOKEN_EXPIRED) from None
        except jwt.MissingRequiredClaimError as error:
            raise InvalidToken(f"no {error.claim} claim") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # PyJWT lets the last four through for malformed input; which ones depends on its version.
            cause = next((text for kind, text in _CAUSES if isinstance(error, kind)), "malformed token")
            raise InvalidToken(cause) from None
        expiry = expiry_of(claims)
        if expiry is not None and expiry + self._expiry_leeway_s <= time.time():  # PyJWT has one leeway for all claims
            raise InvalidToken("expired", CloseCode.TOKEN_EXPIRED)
        is_nobodys = _CHANNEL in claims and claims.get("sub") == ""  # so Centrifugo says that a client has no user
        if "sub" in claims and not is_nobodys and not _is_user(claims["sub"]):
            raise InvalidToken("bad sub claim")
        return Claims(claims)

    def _found_key(self, token: str, find_key: KeyFunction) -> Key:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm not in self._algorithms:
            raise InvalidToken("algorithm not allowed")  # before it costs a key lookup
        try:
            key = find_key(MappingProxyType(header))
        except (InvalidToken, KeyUnavailable):
            raise
        except jwt.PyJWKClientConnectionError as error:
            raise KeyUnavailable("the keys can't be fetched") from error
        except (LookupError, jwt.PyJWKClientError) as error:
            raise InvalidToken("unknown key") from error
        except Exception as error:
            raise KeyUnavailable("the key function failed") from error
        if key is None:
            raise InvalidToken("unknown key")
        try:
            return fitting_key(key, algorithm)
        except UnfitKey as error:
            raise InvalidToken("its key is not for its algorithm") from error

    async def _refused(self, connection: HTTPConnection, refusal: _Refusal) -> Exception:
        """Accepts the socket if it is refused with a close, and returns the exception for Starlette to answer."""
        scope = connection.scope
        expired = refusal.reason == CloseCode.TOKEN_EXPIRED.reason
        response = TokenRefused(refusal.status, refusal.reason, refusal.headers, expired=expired)
        if scope["type"] == "http":
            return response
        if (socket := _socket(scope)) is not None:
            socket.count_refused("token")
            if self._refuse == "http":
                socket.refuse_over_http()
        if isinstance(connection, WebSocket) and connection.application_state is WebSocketState.CONNECTING:
            if self._refuse == "close":
                offered = offered_subprotocol(scope) or answer_to(scope.get("subprotocols", ()))
                await connection.accept(offered)
            elif "websocket.http.response" in (scope.get("extensions") or {}):
                return response
        return WebSocketException(refusal.code, refusal.reason)


def _checked_names(argument: str, value: object) -> list[str] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        raise InvalidArgument(argument, f"got {shown(value)}", "a str, a list of them, or None")
    if not all(isinstance(name, str) and name for name in names):
        raise InvalidArgument(argument, f"got {shown(value)}", "a str, a list of them, or None")
    return list(names)


def _is_user(sub: object) -> bool:
    if not isinstance(sub, (str, int)):
        return False
    try:
        user_name(sub)
    except InvalidArgument:
        return False
    return True


def _socket(scope: Mapping[str, Any]) -> Socket | None:
    return cast("Socket | None", scope.get("hubbub")) if is_handshake(scope) else None


def _where(scope: Mapping[str, Any]) -> str:
    kind = "a WebSocket" if scope["type"] == "websocket" else "a request"
    return f"{kind} on {shown(scope.get('path', ''))}"


def _detail(error: Exception) -> str:
    """Returns what the key function raised. It is safe to log, because the function never sees the token."""
    cause = error.__cause__
    return "" if cause is None else f" ({type(cause).__name__}: {shown(str(cause), limit=200)})"
