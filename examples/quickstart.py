import os
from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket
from pydantic import BaseModel, Field, ValidationError

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
current_user = JWTAuth(key=os.environ["JWT_KEY"], algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]  # the same for HTTP routes and WebSockets


class Say(BaseModel):  # the message that a client may send
    body: str = Field(max_length=2000)


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str, user: User) -> None:
    async with manager.connect(websocket, user.sub, room=room, info={"name": user.get("name")}) as connection:
        async for message in connection.iter_json():
            try:
                say = Say.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                await manager.broadcast({"type": "message", "user_id": user.sub, "body": say.body}, room=room)


@app.post("/users/{author_id}/notify")
def notify(author_id: int, user: User) -> dict[str, bool]:  # a sync route, in a worker thread
    return {"online": manager.from_thread.send_to_user(author_id, {"type": "notification", "by": user.sub})}
