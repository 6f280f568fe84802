"""The methods of the HTTP API: each takes a request and returns a result, or raises `Refused`."""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from ..arguments import client_info, close_code, close_reason
from ..brokers.base import Broker
from ..close import CloseCode
from ..codec import Kind, Payload, decode, dumps, loads
from ..endpoints.histories import Unrecoverable, read_history
from ..endpoints.sends import Sends
from ..envelope import Author, Entry, Envelope, Instruction, Kick, Refresh, Subscribe, Unsubscribe
from ..errors import BrokerUnavailable, InvalidArgument, shown
from ..lifecycle import Lifecycle
from ..names import EVERYONE_NAME, room_name, user_name, user_of, user_room
from ..options import RoomOptions
from ..positions import Position
from ..protocols.centrifugo import messages
from ..protocols.centrifugo.codes import ErrorCode
from ..rooms.census import Census, TooMany
from . import models
from .catalog import MAX_LISTED, MAX_MESSAGES, MAX_MESSAGES_BYTES, METHODS
from .refusals import Refused, refusal_of, refused_by

logger: Final = logging.getLogger("hubbub")

_AT_ONCE: Final = 32
"""Maximum number of commands of a batch, or channels of a broadcast, that are done at once."""

T = TypeVar("T")


class Engine(Protocol):
    """The part of a manager's engine that the API uses."""

    broker: Broker
    census: Census
    lifecycle: Lifecycle
    sends: Sends | None

    def options_of(self, channel: str) -> RoomOptions:
        """Returns the options of a room."""

    async def publish(
        self, channel: str, envelope: Envelope, *, keep: bool = True, once: str | None = None
    ) -> Position | None:
        """Publishes a message."""

    async def disconnect_user(self, user_id: str, kick: Kick) -> bool:
        """Closes connections of a user."""


class Methods:
    """Does what requests ask for.

    Args:
        engine: Gives the engine of the manager.
    """

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine_of = engine

    @property
    def _engine(self) -> Engine:
        engine = self._engine_of()
        engine.lifecycle.check_loop()
        return engine

    async def done(self, name: str, request: Any) -> BaseModel:
        """Does what a request asks for.

        Args:
            name: The name of the method.
            request: The request, of the model of the method.

        Raises:
            Refused: It can't be done.
        """
        try:
            done: BaseModel = await getattr(self, name)(request)
            return done
        except (InvalidArgument, BrokerUnavailable) as error:
            raise refused_by(error, name) from error

    # Messages

    async def publish(self, request: models.ApiPublishRequest) -> models.ApiPublishResult:
        """Publishes a message."""
        return await self._publish(request.channel, request, *_encoded(request))

    async def broadcast(self, request: models.ApiBroadcastRequest) -> models.ApiBroadcastResult:
        """Publishes a message to several channels."""
        message, payload = _encoded(request)

        async def answer(channel: str) -> models.ApiPublishAnswer:
            try:
                return models.ApiPublishAnswer(result=await self._publish(channel, request, message, payload))
            except Refused as refused:
                return models.ApiPublishAnswer(error=refused.error)
            except (InvalidArgument, BrokerUnavailable) as error:
                return models.ApiPublishAnswer(error=refused_by(error, "broadcast").error)

        return models.ApiBroadcastResult(responses=await _few_at_once(map(answer, request.channels)))

    async def _publish(
        self,
        name: str,
        request: models.ApiPublishRequest | models.ApiBroadcastRequest,
        message: object,
        payload: Payload,
    ) -> models.ApiPublishResult:
        engine, channel = self._engine, _channel(name)
        if engine.sends is not None:
            engine.sends.check(channel, message, payload)
        keep, once = not request.skip_history, request.idempotency_key or None
        position = await engine.publish(channel, Envelope(payload), keep=keep, once=once)
        if position is None:
            return models.ApiPublishResult(offset=0, epoch="")
        return models.ApiPublishResult(offset=position.offset, epoch=position.epoch)

    # Users

    async def subscribe(self, request: models.ApiSubscribeRequest) -> models.ApiEmpty:
        """Puts a user into a room."""
        info = client_info(request.info)
        return await self._instruct(request.user, Subscribe(_room(request.channel), only=request.client, info=info))

    async def unsubscribe(self, request: models.ApiUnsubscribeRequest) -> models.ApiEmpty:
        """Takes a user out of a room."""
        return await self._instruct(request.user, Unsubscribe(_room(request.channel), only=request.client))

    async def disconnect(self, request: models.ApiDisconnectRequest) -> models.ApiEmpty:
        """Closes connections of a user."""
        how = request.disconnect or models.ApiDisconnect()
        code, reason = close_code(how.code or CloseCode.KICKED.code), close_reason(how.reason)
        if not how.code:
            reason = reason or CloseCode.KICKED.reason
        kick = Kick(code, reason, only=request.client, spared=tuple(request.whitelist or ()))
        await self._engine.disconnect_user(user_name(request.user, "user"), kick)
        return models.ApiEmpty()

    async def refresh(self, request: models.ApiRefreshRequest) -> models.ApiEmpty:
        """Changes how long a user is authorized."""
        if request.expired:
            cause = CloseCode.TOKEN_EXPIRED
            return await self._instruct(request.user, Kick(cause.code, cause.reason, only=request.client))
        if request.expire_at <= time.time():
            raise Refused(ErrorCode.BAD_REQUEST, "expired must be true, or expire_at a time in the future")
        return await self._instruct(request.user, Refresh(float(request.expire_at), only=request.client))

    async def _instruct(self, user: str, instruction: Instruction) -> models.ApiEmpty:
        await self._engine.broker.instruct(user_room(user_name(user, "user")), instruction)
        return models.ApiEmpty()

    # Questions

    async def presence(self, request: models.ApiPresenceRequest) -> models.ApiPresenceResult:
        """Lists the clients in a channel."""
        entries = await self._engine.broker.connections(_channel(request.channel))
        infos = (_client(each.user_id, each.connection_id, each.info, each.room_info) for each in entries)
        return models.ApiPresenceResult(presence={each.client: each for each in infos})

    async def presence_stats(self, request: models.ApiPresenceStatsRequest) -> models.ApiPresenceStatsResult:
        """Counts the clients and users in a channel."""
        entries = await self._engine.broker.connections(_channel(request.channel))
        return models.ApiPresenceStatsResult(
            num_clients=sum(each.live for each in entries), num_users=len({each.user_id or "" for each in entries})
        )

    async def history(self, request: models.ApiHistoryRequest) -> models.ApiHistoryResult:
        """Reads the history of a channel."""
        channel, since = self._with_history(request.channel), request.since
        asked = messages.HistoryRequest(
            limit=request.limit,
            since=None if since is None else messages.StreamPosition(since.offset, since.epoch),
            reverse=request.reverse,
        )
        log = self._engine.broker
        try:
            entries, head = await read_history(
                log, asked, channel=channel, most=MAX_MESSAGES, most_bytes=MAX_MESSAGES_BYTES
            )
        except Unrecoverable:
            raise Refused(ErrorCode.UNRECOVERABLE_POSITION) from None
        publications = [_publication(each) for each in entries]
        epoch, offset = ("", 0) if head is None else head
        return models.ApiHistoryResult(publications=publications, offset=offset, epoch=epoch)

    async def history_remove(self, request: models.ApiHistoryRemoveRequest) -> models.ApiEmpty:
        """Removes the history of a channel."""
        await self._engine.broker.clear_history(self._with_history(request.channel))
        return models.ApiEmpty()

    def _with_history(self, name: str) -> str:
        channel = _channel(name)
        if self._engine.options_of(channel).history is None:
            raise Refused(ErrorCode.NOT_AVAILABLE, f"{shown(name)} keeps no history: RoomOptions(history=...)")
        return channel

    async def channels(self, request: models.ApiChannelsRequest) -> models.ApiChannelsResult:
        """Lists the rooms that have members."""
        try:
            sizes = await self._engine.census.rooms(request.pattern or "", MAX_LISTED)
        except TooMany as error:
            raise Refused(ErrorCode.LIMIT_EXCEEDED, str(error)) from None
        return models.ApiChannelsResult(
            channels={name: models.ApiChannelInfo(num_clients=size) for name, size in sizes.items()}
        )

    async def info(self, request: models.ApiInfoRequest) -> models.ApiInfoResult:
        """Lists the workers."""
        nodes = await self._engine.census.nodes()
        return models.ApiInfoResult(
            nodes=[models.ApiNodeInfo.model_validate(each, from_attributes=True) for each in nodes]
        )

    # Several at once

    async def batch(self, request: models.ApiBatchRequest) -> models.ApiBatchAnswer:
        """Does several commands."""
        if request.parallel:
            replies = await _few_at_once(map(self._reply, request.commands))
        else:
            replies = [await self._reply(command) for command in request.commands]
        return models.ApiBatchAnswer(replies=replies)

    async def _reply(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            if len(command) != 1:
                raise Refused(ErrorCode.BAD_REQUEST, f"a command has one field, the method, and not {len(command)}")
            ((name, fields),) = command.items()
            if name == "batch":
                raise Refused(ErrorCode.BAD_REQUEST, "a batch can't hold a batch")
            if name not in METHODS:
                raise Refused(ErrorCode.METHOD_NOT_FOUND, shown(name))
            try:
                request = METHODS[name].request.model_validate(fields)
            except ValidationError as error:
                raise refusal_of(error.errors(include_url=False, include_context=False)) from None
            result = await self.done(name, request)
        except Refused as refused:
            return {"error": refused.error.model_dump(exclude_unset=True)}
        return {name: result.model_dump(exclude_unset=True)}


def _encoded(request: models.ApiPublishRequest | models.ApiBroadcastRequest) -> tuple[object, Payload]:
    """Returns the message of a request, and its encoded form: a text is a JSON string, too."""
    if request.b64data is None:
        return request.data, Payload(Kind.JSON, dumps(request.data))
    data = b64decode(request.b64data)
    return data, Payload(Kind.BINARY, data)


def _room(name: str) -> str:
    """Returns the name of a room that users join and leave."""
    if name[:1] == "$":
        raise Refused(ErrorCode.UNKNOWN_CHANNEL, f"{shown(name)}: every connection stays in the rooms with '$'")
    return room_name(name, "channel")


def _channel(name: str) -> str:
    """Returns the channel of any room at the broker, by the name that requests have for it."""
    if name[:1] != "$":
        return room_name(name, "channel")
    if name == EVERYONE_NAME:
        return EVERYONE_NAME
    user = user_of(name)
    if not user:
        raise Refused(
            ErrorCode.UNKNOWN_CHANNEL, f"{shown(name)}; with '$' there are '$everyone' and '$user:<id>' for each user"
        )
    return user_room(user_name(user, "channel"))


def _client(user: str | None, client: str, info: Any, room_info: Any) -> models.ApiClientInfo:
    found = models.ApiClientInfo(user=user or "", client=client)
    if info is not None:
        found.conn_info = info
    if room_info is not None:
        found.chan_info = room_info
    return found


def _author(author: Author) -> models.ApiClientInfo:
    return _client(author.user_id, author.client_id, loads(author.info), loads(author.room_info))


def _publication(entry: Entry) -> models.ApiPublication:
    payload = entry.envelope.payload
    found = models.ApiPublication(offset=entry.offset, data=None)
    if payload.kind is Kind.BINARY:
        found.data, found.tags = b64encode(payload.data).decode(), {"encoding": "base64"}
    else:
        found.data = decode(payload)
    if entry.envelope.author is not None:
        found.info = _author(entry.envelope.author)
    return found


async def _few_at_once(work: Any) -> list[T]:
    """Awaits several coroutines, a few at a time. They begin in order."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Awaitable[T]) -> T:
        async with turn:
            return await each

    results = await asyncio.gather(*map(one, work), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
