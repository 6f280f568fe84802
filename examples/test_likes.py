"""An app and its test in one file."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from hubbub import ConnectionManager
from hubbub.testing import record

app = FastAPI()
manager = ConnectionManager()
manager.install(app)


@app.post("/posts/{post_id}/like")
async def like(post_id: int) -> None:
    await manager.broadcast({"type": "liked", "post": post_id}, room=f"post:{post_id}")


def test_a_like_reaches_the_room_of_the_post() -> None:
    with TestClient(app) as client, record(manager) as pushed:
        client.post("/posts/1/like")

    assert pushed.to_room("post:1") == [{"type": "liked", "post": 1}]
    assert pushed.to_everyone() == []
