"""The official SDK for Python, as one of the `sdks`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import centrifuge
from centrifuge.exceptions import ReplyError

from tests.integration.sdk import (
    RECONNECT_MS,
    Client,
    Fetched,
    History,
    Info,
    Publication,
    Refused,
    Room,
    Sdk,
    Served,
    Subscribed,
)


async def _answered(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await work
    except ReplyError as error:
        raise Refused(error.code, error.message, error.temporary) from error


def _info(client: Client, info: Any) -> Info:
    return Info(info.user, info.client, client.parsed(info.conn_info), client.parsed(info.chan_info))


def _python_publication(client: Client, pub: Any) -> Publication:
    info = None if pub.info is None else _info(client, pub.info)
    return Publication(client.parsed(pub.data), pub.offset, pub.tags, info)


def _python_subscribed(client: Client, ctx: Any) -> Subscribed:
    data = client.parsed(ctx.data)
    return Subscribed(ctx.channel, data, ctx.recoverable, ctx.positioned, ctx.was_recovering, ctx.recovered)


class PythonSdk(Sdk):
    """The SDK for Python.

    Args:
        protobuf: Whether its clients speak Protobuf.
        headers: Headers of their handshakes.
    """

    def __init__(self, *, protobuf: bool, headers: Mapping[str, str] | None = None) -> None:
        self._protobuf = protobuf
        self._headers = headers

    @asynccontextmanager
    async def client(
        self,
        live: Served,
        user: str | None = "ann",
        *,
        path: str = "/live",
        port: int = 0,
        tokens: Sequence[Fetched] = (),
        **more: Any,
    ) -> AsyncIterator[PythonClient]:
        client = PythonClient(user, self._protobuf, list(tokens))
        client.begin(f"ws://127.0.0.1:{port or live.server.port}{path}", headers=self._headers, **client.encoded(more))
        try:
            yield client
        finally:
            socket = client.sdk._conn
            await client.disconnect()
            if socket is not None:
                await socket.wait_closed()  # the SDK does not wait


class PythonClient(Client, centrifuge.ClientEventHandler):
    """A client of the SDK for Python.

    Attributes:
        sdk: The SDK's client.
    """

    sdk: Any

    def begin(self, url: str, **more: Any) -> None:
        shortest, longest = (each / 1000 for each in RECONNECT_MS)
        fetched = {} if self.user is None else {"get_token": self._token}
        self.sdk = centrifuge.Client(
            url,
            events=self,
            use_protobuf=self.protobuf,
            min_reconnect_delay=shortest,
            max_reconnect_delay=longest,
            **fetched,
            **more,
        )

    async def _token(self, *_: Any) -> str:
        found = self.next_token()
        return await asyncio.Future() if found is None else found

    async def connect(self) -> None:
        with suppress(centrifuge.CentrifugeError):
            await self.sdk.connect()

    async def disconnect(self) -> None:
        await self.sdk.disconnect()

    async def rpc(self, method: str, value: Any = None) -> Any:
        return self.parsed((await _answered(self.sdk.rpc(method, self.sent(value)))).data)

    async def publish(self, room: str, value: Any) -> None:
        await _answered(self.sdk.publish(room, self.sent(value)))

    async def history(self, room: str) -> History:
        return self.page(await _answered(self.sdk.history(room)))

    async def room(self, name: str, tokens: list[str] | None = None) -> Room:
        room = _PythonRoom(name, tokens)
        room.client = self
        fetched = {} if tokens is None else {"get_token": room.next_token}
        room.sdk = self.sdk.new_subscription(name, events=room, **fetched)
        return room

    def page(self, found: Any) -> History:
        return History([_python_publication(self, each) for each in found.publications], found.offset, found.epoch)

    async def on_connecting(self, ctx: Any) -> None:
        self.connecting.append(ctx.code)

    async def on_connected(self, ctx: Any) -> None:
        self.connected.append(self.parsed(ctx.data))

    async def on_disconnected(self, ctx: Any) -> None:
        self.disconnected.append((ctx.code, ctx.reason))

    async def on_publication(self, ctx: Any) -> None:
        self.published.append((ctx.channel, self.parsed(ctx.pub.data)))

    async def on_subscribed(self, ctx: Any) -> None:
        self.joined.append(_python_subscribed(self, ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.left.append(ctx.channel)


class _PythonRoom(Room, centrifuge.SubscriptionEventHandler):
    client: PythonClient
    sdk: Any

    async def next_token(self, *_: Any) -> str:
        assert self.tokens is not None
        return self.tokens.pop(0)

    async def subscribe(self) -> None:
        await self.sdk.subscribe()

    async def unsubscribe(self) -> None:
        await self.sdk.unsubscribe()

    async def state(self) -> str:
        return str(self.sdk.state.value)

    async def publish(self, value: Any) -> None:
        await _answered(self.sdk.publish(self.client.sent(value)))

    async def presence(self) -> dict[str, str]:
        found = await _answered(self.sdk.presence())
        return {name: each.user for name, each in found.clients.items()}

    async def presence_stats(self) -> tuple[int, int]:
        found = await _answered(self.sdk.presence_stats())
        return found.num_clients, found.num_users

    async def history(self, limit: int = 0, since: tuple[int, str] | None = None, reverse: bool = False) -> History:
        position = None if since is None else centrifuge.StreamPosition(*since)
        return self.client.page(await _answered(self.sdk.history(limit, position, reverse)))

    async def on_subscribing(self, ctx: Any) -> None:
        self.subscribing.append(ctx.code)

    async def on_subscribed(self, ctx: Any) -> None:
        self.subscribed.append(_python_subscribed(self.client, ctx))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.unsubscribed.append((ctx.code, ctx.reason))

    async def on_error(self, ctx: Any) -> None:
        self.errors.append(ctx.code)

    async def on_publication(self, ctx: Any) -> None:
        self.publications.append(_python_publication(self.client, ctx.pub))

    async def on_join(self, ctx: Any) -> None:
        self.came.append(_info(self.client, ctx.info))

    async def on_leave(self, ctx: Any) -> None:
        self.gone.append(_info(self.client, ctx.info))
