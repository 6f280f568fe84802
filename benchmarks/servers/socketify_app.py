"""socketify (uWebSockets in C++, from Python): its topics do the fan-out. The argument is the port."""

# mypy: disable-error-code="import-not-found"

import sys

from socketify import App, CompressOptions, OpCode, Request, Response, WebSocket

app = App()


def upgrade(response: Response, request: Request, context: object) -> None:
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        request.get_url(),
    )


def opened(socket: WebSocket) -> None:
    socket.subscribe(socket.get_user_data())


def publish(socket: WebSocket, message: str, opcode: OpCode) -> None:
    app.publish(socket.get_user_data(), message, opcode)


def echo(socket: WebSocket, message: str, opcode: OpCode) -> None:
    socket.send(message, opcode)


settings = {"compression": CompressOptions.DISABLED, "max_payload_length": 1024 * 1024, "idle_timeout": 120}
app.ws("/echo", {**settings, "message": echo})
app.ws("/*", {**settings, "upgrade": upgrade, "open": opened, "message": publish})
app.listen(int(sys.argv[1]))
app.run()
