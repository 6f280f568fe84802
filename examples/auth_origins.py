"""An API on its own host, used by pages on other hosts."""

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager

app = FastAPI()
manager = ConnectionManager(allowed_origins=["https://app.example", "https://*.app.example", "http://localhost:5173"])
manager.install(app)


@app.websocket("/ws")
async def news(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for _ in connection:
            pass
