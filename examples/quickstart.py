from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
current_user = JWTAuth(key="change-me-to-32-bytes-or-more!!!!", algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]  # the same for HTTP routes and WebSockets


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str, user: User) -> None:
    async with manager.connect(websocket, user.sub, room=room, info={"name": user["name"]}) as connection:
        async for message in connection.iter_json():
            await manager.broadcast({"type": "message", "user_id": user.sub, "body": message["body"]}, room=room)


@app.post("/users/{author_id}/notify")
def notify(author_id: int, user: User) -> dict[str, bool]:  # a sync route, in a worker thread
    return {"online": manager.from_thread.send_to_user(author_id, {"type": "notification", "by": user.sub})}
