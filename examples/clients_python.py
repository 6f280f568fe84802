"""A client of an endpoint in Python, with the official SDK."""

import asyncio

import httpx
from centrifuge import CentrifugeError, Client, PublicationContext, SubscriptionEventHandler


class Chat(SubscriptionEventHandler):
    async def on_publication(self, ctx: PublicationContext) -> None:
        print(f"{ctx.pub.data['user_id']}: {ctx.pub.data['text']}")


async def get_token() -> str:
    async with httpx.AsyncClient() as http:
        response = await http.post("http://localhost:8000/token", params={"name": "carl"})
    response.raise_for_status()
    token: str = response.json()
    return token


async def main() -> None:
    client = Client("ws://localhost:8000/live", get_token=get_token)
    chat = client.new_subscription("chat:lobby", events=Chat())
    await client.connect()
    await chat.subscribe()
    await chat.ready()
    await client.rpc("say", {"room": "lobby", "text": "Hello from Python"})
    try:
        await client.rpc("say", {"room": "lobby", "text": ""})
    except CentrifugeError as error:
        print(error)  # Error 422: text: String should have at least 1 character (temporary: False)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
