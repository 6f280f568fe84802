"""A stream of events from a route of the app, without an endpoint."""

from fastapi import FastAPI, HTTPException, Request, Response

from hubbub import ConnectionManager, History, RoomOptions

app = FastAPI()
manager = ConnectionManager(rooms={"job:*": RoomOptions(history=History(100, ttl_s=3600))})
manager.install(app)


@app.get("/jobs/{job}/events")
async def progress(request: Request, job: str) -> Response:
    if job == "secret":
        raise HTTPException(403, "not your job")
    return manager.event_stream(request, rooms=[f"job:{job}"])


@app.post("/jobs/{job}")
async def advance(job: str, percent: int) -> None:
    await manager.broadcast({"percent": percent}, room=f"job:{job}")
