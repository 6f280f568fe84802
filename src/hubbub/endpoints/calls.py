"""The messages of a client for the app's functions: requests, messages without an answer, and publications."""

from __future__ import annotations

import logging
from typing import Any, Final

from ..codec import Kind, Payload, dumps, loads_from_client
from ..envelope import Author, Envelope
from ..errors import shown
from ..protocols.centrifugo.codes import DisconnectCode, ErrorCode
from ..protocols.centrifugo.messages import PublishRequest, PublishResult, RPCRequest, RPCResult, SendRequest
from .client import Client, Refused, denied
from .subscriptions import Subscriptions

logger: Final = logging.getLogger("hubbub")

_NULL: Final = Payload(Kind.JSON, b"null")


class Calls:
    """Calls the app's functions for the messages of one client.

    Args:
        client: The client.
        subscriptions: Its subscriptions.
    """

    def __init__(self, client: Client, subscriptions: Subscriptions) -> None:
        self._client = client
        self._subscriptions = subscriptions
        self._routes = client.served.routes

    def is_concurrent(self, request: RPCRequest | SendRequest) -> bool:
        """Returns whether the function of a request or message runs beside the other requests of the client."""
        try:
            name = request.method if isinstance(request, RPCRequest) else _message_in(request)["method"]
            method = self._routes.methods.get(name)
        except (ValueError, TypeError, KeyError):
            return False  # which `send` answers in its turn
        return method is not None and method.concurrent

    async def rpc(self, request: RPCRequest) -> RPCResult:
        """Answers a request."""
        method = self._routes.methods.get(request.method)
        if method is None:
            raise Refused((ErrorCode.METHOD_NOT_FOUND if self._routes.methods else ErrorCode.NOT_AVAILABLE).error())
        return RPCResult(await self._client.call(method.function, request.data))

    async def send(self, request: SendRequest) -> None:
        """Handles a message without an answer: an object with the ``method`` and its ``data``."""
        try:
            message = _message_in(request)
            name = message["method"]
            method = self._routes.methods[name]
            data = message.get("data")
        except (ValueError, TypeError, KeyError, AttributeError):
            await self._client.close(DisconnectCode.NOT_AVAILABLE)
        try:
            await self._client.call(method.function, None if data is None else Payload(Kind.JSON, dumps(data)))
        except Refused as refused:
            logger.debug("a message to %s was refused: %s", shown(name), shown(refused.error.message))

    async def publish(self, request: PublishRequest) -> PublishResult:
        """Publishes what the rule of a room makes of a client's publication."""
        name = request.channel
        match = self._routes.publishing.match(name)
        if match is None:
            raise denied(name, f"no @publish pattern matches; there are: {self._routes.publishing.patterns}")
        if not self._client.is_subscribed(name):
            raise denied(name, "it publishes there, and is not subscribed")
        function, sends = match.rule.function, self._client.engine.sends
        if sends is not None:
            function = sends.checked(name, function)
        payload = await self._client.call(function, request.data, match.names)
        if payload is None:
            return PublishResult()
        author = await self._author(name)
        if not self._client.is_subscribed(name):  # the right was taken back while the function ran
            raise Refused(ErrorCode.PERMISSION_DENIED.error())
        await self._client.engine.publish(name, Envelope(payload, author=author))
        return PublishResult()

    async def _author(self, name: str) -> Author:
        await self._subscriptions.joined(name)
        session = self._client.session
        membership = session.memberships.get(name)  # None if the client left the room while the function ran
        presence_id = self._client.engine.broker.presence_id(name, session.user_id, session.id)
        room_info = None if membership is None else membership.room_info
        return Author(session.user_id, presence_id, dumps(session.info), dumps(room_info))


def _message_in(request: SendRequest) -> Any:
    """Returns the object with ``method`` and ``data`` that a message carries, or whatever else the client sent.

    Raises:
        ValueError: It is not JSON.
    """
    return loads_from_client((request.data or _NULL).data)
