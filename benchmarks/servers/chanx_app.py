"""chanx on FastAPI and fast-channels, as in its README, with the in-memory layer."""

# mypy: disable-error-code="import-not-found,import-untyped,misc,untyped-decorator"

from typing import ClassVar, Literal

from chanx.core.decorators import channel, ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fast_channels.layers import InMemoryChannelLayer, register_channel_layer
from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from benchmarks.servers.typed import Said, Say, said


class AskMessage(BaseMessage):
    action: Literal["ask"] = "ask"
    payload: Say


class SayMessage(BaseMessage):
    action: Literal["say"] = "say"
    payload: Say


class SaidMessage(BaseMessage):
    action: Literal["said"] = "said"
    payload: Said


@channel(name="live")
class LiveConsumer(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "default"
    groups: ClassVar = ["r"]

    @ws_handler
    async def ask(self, message: AskMessage) -> SaidMessage:
        return SaidMessage(payload=said(message.payload))

    @ws_handler(output_type=SaidMessage)
    async def say(self, message: SayMessage) -> None:
        await self.broadcast_message(SaidMessage(payload=said(message.payload)))


register_channel_layer("default", InMemoryChannelLayer())

app = FastAPI(routes=[WebSocketRoute("/live", LiveConsumer.as_asgi())])
