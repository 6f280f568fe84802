"""A subclass of the manager, with a method that the app adds."""

from fastapi import FastAPI, WebSocket

from hubbub import ConnectionManager, RoomOptions


class Manager(ConnectionManager):
    def __init__(self) -> None:
        super().__init__(rooms={"game:*": RoomOptions(max_members=4)})
        self.scores: dict[str, int] = {}

    async def score(self, game: str, points: int) -> None:
        self.scores[game] = self.scores.get(game, 0) + points
        await self.broadcast({"type": "score", "points": self.scores[game]}, room=f"game:{game}")


app = FastAPI()
manager = Manager()
manager.install(app)


@app.websocket("/games/{game}")
async def play(websocket: WebSocket, game: str) -> None:
    async with manager.connect(websocket, room=f"game:{game}") as connection:
        async for _ in connection.iter_text():
            await manager.score(game, 1)
