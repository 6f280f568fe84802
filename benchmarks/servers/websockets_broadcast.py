"""``websockets.broadcast`` as in the library's guide to broadcasting, on uvloop. The argument is the port."""

import asyncio
import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

rooms: dict[str, set[ServerConnection]] = defaultdict(set)


async def handler(websocket: ServerConnection) -> None:
    assert websocket.request is not None
    path = websocket.request.path
    members = rooms[path]
    members.add(websocket)
    try:
        async for message in websocket:
            if path == "/echo":
                await websocket.send(message)
            else:
                broadcast(members, message)
    except ConnectionClosed:
        pass
    finally:
        members.remove(websocket)


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port, compression=None, backlog=2048):
        await asyncio.get_running_loop().create_future()


uvloop.run(main(int(sys.argv[1])))
