"""The app that examples/test_posts.py tests: a like notifies the author of the post."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, WebSocket
from pydantic import BaseModel, Field, ValidationError

from hubbub import ConnectionManager
from hubbub.auth import Claims, JWTAuth

app = FastAPI()
manager = ConnectionManager()
manager.install(app)
current_user = JWTAuth(key=os.environ["JWT_KEY"], algorithms=["HS256"])
User = Annotated[Claims, Depends(current_user)]

AUTHORS = {1: "ann", 2: "bob"}
mails: list[str] = []


@app.post("/posts/{post_id}/like")
async def like(post_id: int, user: User) -> None:
    if post_id not in AUTHORS:
        raise HTTPException(404)
    author = AUTHORS[post_id]
    await manager.broadcast({"type": "liked", "post": post_id}, room=f"post:{post_id}")
    if not await manager.send_to_user(author, {"type": "like", "post": post_id, "by": user.sub}):
        mails.append(author)


class Comment(BaseModel):
    text: str = Field(max_length=2000)


@app.websocket("/ws/posts/{post_id}")
async def watch(websocket: WebSocket, post_id: int, user: User) -> None:
    async with manager.connect(websocket, user.sub, room=f"post:{post_id}") as connection:
        async for message in connection.iter_json():
            try:
                comment = Comment.model_validate(message)
            except ValidationError as error:
                await connection.send({"type": "error", "message": error.errors()[0]["msg"]})
            else:
                said = {"type": "comment", "by": user.sub, "text": comment.text}
                await manager.broadcast(said, room=f"post:{post_id}")
