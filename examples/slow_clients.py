"""An overflow policy for each kind of room: it decides which messages a slow client misses."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, Limits, RoomOptions

manager = ConnectionManager(
    rooms={
        "chat:*": RoomOptions(history=1000),  # overflow="close": the client reconnects and recovers
        "ticker:*": RoomOptions(overflow="latest"),
        "log:*": RoomOptions(overflow="drop_oldest"),
        "sensor:*": RoomOptions(overflow="drop_newest"),
    },
    limits=Limits(max_outbox_bytes=256 * 1024, stall_timeout_s=30),
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(tick())
        yield
        ticking.cancel()


app = FastAPI(lifespan=lifespan)
manager.install(app)


async def tick() -> None:
    while True:
        await publish_prices({"ACME": time.time() % 100, "INIT": time.time() % 7})
        await asyncio.sleep(0.5)


async def publish_prices(prices: dict[str, float]) -> None:
    for symbol, price in prices.items():
        await manager.broadcast({"symbol": symbol, "price": price}, room="ticker:all", key=symbol)


@app.websocket("/ws/ticker")
async def ticker(websocket: WebSocket) -> None:
    async with manager.connect(websocket, room="ticker:all") as connection:
        await connection.wait_gone()


@app.get("/health/slow")
def slow() -> dict[str, int]:
    stats = manager.stats()
    return {
        "queued_bytes": stats.queued_bytes,
        "dropped": stats.dropped,
        "slow": stats.slow,
        "stalled": stats.stalled,
    }
