"""Processes without sockets that report to users, such as the workers of a task queue, a cron job or a script."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing import get_context

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, Publisher, RoomOptions

BROKER = os.environ.get("BROKER", "redis://localhost")

manager = ConnectionManager(BROKER, rooms={"reports:*": RoomOptions(history=100)})
publisher = Publisher(BROKER)  # connects on first use, in each process separately


def make_report(user_id: str, pages: int) -> None:
    """Runs in a worker process; with Celery it would be a task."""
    for page in range(1, pages + 1):
        time.sleep(0.01)  # the work
        publisher.broadcast({"type": "progress", "page": page, "of": pages}, room=f"reports:{user_id}")
    if not publisher.send_to_user(user_id, {"type": "done", "pages": pages}):
        print(f"{user_id} is not connected: send an e-mail")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Spawned, because forked processes would hold this process's sockets open.
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as app.state.workers:
        yield


app = FastAPI(lifespan=lifespan)
manager.install(app)


@app.post("/reports/{user_id}", status_code=202)
async def report(user_id: str, pages: int = 3) -> None:
    asyncio.get_running_loop().run_in_executor(app.state.workers, partial(make_report, user_id, pages))


@app.websocket("/ws/{user_id}")
async def reports(websocket: WebSocket, user_id: str) -> None:
    async with manager.connect(websocket, user_id, room=f"reports:{user_id}") as connection:
        await connection.wait_gone()
