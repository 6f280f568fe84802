"""Tokens from an identity provider, checked with the keys that it publishes."""

from collections.abc import Mapping
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
jwks = jwt.PyJWKClient("https://id.example/.well-known/jwks.json", timeout=3)


def signing_key(header: Mapping[str, Any]) -> jwt.PyJWK:
    return jwks.get_signing_key(header["kid"])


current_user = JWTAuth(signing_key, algorithms=["RS256"], issuer="https://id.example", audience="chat", leeway_s=10)
User = Annotated[Claims, Depends(current_user)]


@app.get("/me")
def me(user: User) -> dict[str, str]:
    return {"id": user.sub}


@app.websocket("/ws")
async def chat(websocket: WebSocket, user: User) -> None:
    async with manager.connect(websocket, user.sub) as connection:
        async for text in connection.iter_text():
            await manager.broadcast({"from": user.sub, "text": text})
