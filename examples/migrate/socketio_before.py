from typing import Any

import socketio
from fastapi import FastAPI

api = FastAPI()
sio = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(sio, api)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, Any] | None) -> None:
    if not auth or not auth.get("name"):
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await sio.save_session(sid, {"name": auth["name"]})


@sio.event
async def join(sid: str, room: str) -> bool:
    session = await sio.get_session(sid)
    if room == "chat:staff" and session["name"] != "ann":
        return False
    await sio.enter_room(sid, room)
    return True


@sio.event
async def say(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    room, text = f"chat:{data.get('room')}", data.get("text")
    if room not in sio.rooms(sid):
        return {"error": "join the room first"}
    if not isinstance(text, str) or not 0 < len(text) <= 2000:
        return {"error": "text: 1 to 2000 characters"}
    session = await sio.get_session(sid)
    said = {"user_id": session["name"], "text": text}
    await sio.emit("said", said, room=room)
    return said


@api.post("/rooms/{room}/close")
async def close(room: str) -> None:
    await sio.emit("closed", {"room": room}, room=f"chat:{room}")
