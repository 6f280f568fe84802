"""picows: a listener per client and a loop over the room, on uvloop. The argument is the port."""

# mypy: disable-error-code="import-not-found,misc"

import sys
from collections import defaultdict

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

rooms: dict[str, set[WSTransport]] = defaultdict(set)


class Member(WSListener):
    def __init__(self, path: str) -> None:
        self.echoes = path == "/echo"
        self.members = rooms[path]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.members.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            for member in (transport,) if self.echoes else self.members:
                member.send(WSMsgType.TEXT, message)


def accepted(request: WSUpgradeRequest) -> WSListener:
    return Member(request.path.decode())


async def main(port: int) -> None:
    server = await ws_create_server(accepted, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
