"""Litestar with its channels plugin, on uvicorn: in memory, or on Redis if HUBBUB_BENCH_REDIS is set.

On Redis it uses the Pub/Sub backend, or, if HUBBUB_BENCH_HISTORY is set, the streams backend with that many messages.
"""

# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

import os

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.base import ChannelsBackend
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect


async def joined(socket: WebSocket, channels: ChannelsPlugin, channel: str) -> None:
    await socket.accept()
    async with channels.start_subscription([channel]) as subscriber, subscriber.run_in_background(socket.send_text):
        try:
            while True:
                channels.publish(await socket.receive_text(), channel)
        except WebSocketDisconnect:
            pass


@websocket("/room/{room:str}")
async def chat(socket: WebSocket, channels: ChannelsPlugin, room: str) -> None:
    await joined(socket, channels, f"room:{room}")


@websocket("/user/{user:str}")
async def user(socket: WebSocket, channels: ChannelsPlugin, user: str) -> None:
    await joined(socket, channels, f"user:{user}")


@websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


def backend() -> ChannelsBackend:
    url, history = os.environ.get("HUBBUB_BENCH_REDIS"), os.environ.get("HUBBUB_BENCH_HISTORY")
    if url is None:
        return MemoryChannelsBackend()

    from litestar.channels.backends.redis import RedisChannelsPubSubBackend, RedisChannelsStreamBackend
    from redis.asyncio import Redis

    if history is None:
        return RedisChannelsPubSubBackend(redis=Redis.from_url(url))
    return RedisChannelsStreamBackend(int(history), redis=Redis.from_url(url))


# One channel exists from the start, because the Pub/Sub backend loses some of several simultaneous first subscriptions.
app = Litestar(
    [chat, user, echo],
    plugins=[ChannelsPlugin(backend=backend(), channels=["everyone"], arbitrary_channels_allowed=True)],
)
