"""What clients see of each other: the info of a connection, and of its subscription."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel

from hubbub import ConnectionManager, Grant, History, RoomOptions, Welcome

app = FastAPI()
manager = ConnectionManager(rooms={"chat:*": RoomOptions(history=History(100), client_presence=True)})
manager.install(app)
names = {1: "Ann", 2: "Bob"}  # in a real app, a database


async def current_user(user_id: Annotated[int, Query()]) -> int:
    return user_id  # in a real app, a JWTAuth


User = Annotated[int, Depends(current_user)]
live = manager.endpoint("/live", auth=current_user)


class Say(BaseModel):
    text: str


@live.connect
async def hello(user: User) -> Welcome:
    return Welcome(info={"name": names[user]})


@live.room("chat:{room}", sends=Say)
async def may_read(room: str, user: User) -> Grant:
    return Grant(info={"role": "owner" if user == 1 else "guest"})


@live.publish("chat:{room}")
async def publish(message: Say, room: str) -> Say:
    return message
