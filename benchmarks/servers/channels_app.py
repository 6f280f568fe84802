"""Django Channels on daphne, with its in-memory layer, or with its Redis Pub/Sub layer if HUBBUB_BENCH_REDIS is set."""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import os
import re
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import re_path

REDIS_URL = os.environ.get("HUBBUB_BENCH_REDIS")
IN_MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
ON_REDIS = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}

settings.configure(
    SECRET_KEY="only for the benchmark",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": ON_REDIS if REDIS_URL else IN_MEMORY},
)
django.setup()


class Chat(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.group = re.sub(r"\W", ".", self.scope["path"].strip("/"))
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.group == "echo":
            await self.send(text_data=text_data)
        else:
            await self.channel_layer.group_send(self.group, {"type": "chat.message", "message": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["message"])


application = ProtocolTypeRouter({"websocket": URLRouter([re_path(r"^", Chat.as_asgi())])})
