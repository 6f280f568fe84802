"""A page on the app's own host: the token is in a cookie that no script can read."""

import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, Response, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

SECRET = os.environ["JWT_KEY"]
LIFETIME = timedelta(hours=8)

app = FastAPI()
manager = ConnectionManager()
manager.install(app)  # also checks the origin; cookies are not safe without that
current_user = JWTAuth(SECRET, algorithms=["HS256"], cookie="session")
User = Annotated[Claims, Depends(current_user)]


@app.post("/sign-in", status_code=204)
def sign_in(name: str, response: Response) -> None:
    token = jwt.encode({"sub": name, "exp": datetime.now(UTC) + LIFETIME}, SECRET, "HS256")
    age = int(LIFETIME.total_seconds())
    response.set_cookie("session", token, max_age=age, httponly=True, secure=True, samesite="lax")


@app.websocket("/ws")
async def inbox(websocket: WebSocket, user: User) -> None:
    async with manager.connect(websocket, user.sub) as connection:
        async for _ in connection:
            pass
