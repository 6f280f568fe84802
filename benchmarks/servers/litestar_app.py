"""Litestar with its channels plugin, in memory, on uvicorn."""

# mypy: disable-error-code="import-not-found,untyped-decorator"

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
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


app = Litestar(
    [chat, user, echo],
    plugins=[ChannelsPlugin(backend=MemoryChannelsBackend(), arbitrary_channels_allowed=True)],
)
