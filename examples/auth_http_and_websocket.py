"""One dependency for HTTP routes and WebSockets, and a token to try it with."""

import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

SECRET = os.environ["JWT_KEY"]

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
current_user = JWTAuth(SECRET, algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]


@app.post("/sign-in")
def sign_in(name: str) -> dict[str, str]:  # a real one checks a password, or uses an identity provider
    expires_at = datetime.now(UTC) + timedelta(minutes=15)
    return {"token": jwt.encode({"sub": name.lower(), "name": name, "exp": expires_at}, SECRET, "HS256")}


@app.get("/me")
def me(user: User) -> dict[str, str]:
    return {"id": user.sub, "name": user["name"]}


@app.websocket("/ws")
async def chat(websocket: WebSocket, user: User) -> None:
    async with manager.connect(websocket, user.sub) as connection:
        async for text in connection.iter_text():
            await manager.broadcast({"from": user["name"], "text": text})
