"""Accepts the handshakes of an endpoint's clients.

A client that may not connect is accepted first, and then closed with a code: an SDK whose handshake is refused can't
read why, and retries forever. It is closed when its first command arrives: an SDK that can't send its ``connect``
retries too, before it has read the Close frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qs

from starlette.websockets import WebSocket

from ..close import CloseCode, Closed
from ..connections.socket import Socket
from ..errors import InvalidArgument
from ..protocols.centrifugo import CENTRIFUGO_JSON, CentrifugoProtocol, centrifugo_protobuf
from ..protocols.centrifugo.codes import DisconnectCode
from ..subprotocols import answer_to
from .served import Engine

logger: Final = logging.getLogger("hubbub")

PROTOBUF: Final = "centrifuge-protobuf"
"""The WebSocket subprotocol that selects Protobuf. It is known even if protobuf is not installed."""


FIRST_COMMAND_S: Final = 5.0
"""Seconds for which a client that may not connect can keep its socket, if it sends nothing."""


async def accept(websocket: WebSocket, engine: Engine) -> CentrifugoProtocol | None:
    """Accepts a client, and closes it again if it may not connect.

    Returns:
        The protocol that the client speaks; None if it was closed.

    Raises:
        WebSocketDisconnect: The client is gone.
    """
    socket: Socket = websocket.scope["hubbub"]
    refusal = engine.origins.refusal(websocket.scope["headers"])
    cause, closed = "origin", Closed(CloseCode.ORIGIN.code, CloseCode.ORIGIN.reason)
    protocol = CENTRIFUGO_JSON
    wants_protobuf = _wants_protobuf(websocket)
    if wants_protobuf:
        try:
            protocol = centrifugo_protobuf()
        except InvalidArgument as error:
            if refusal is None:
                refusal, cause, closed = str(error), "protocol", DisconnectCode.INAPPROPRIATE_PROTOCOL.closed()
    socket.speak(protocol)
    offered: Sequence[str] = websocket.scope.get("subprotocols") or ()
    mine = PROTOBUF if wants_protobuf else protocol.encoding.subprotocol
    # One that offers a token (`bearer`) is answered too: a browser drops a socket that selects none of its offers.
    await websocket.accept(mine if mine in offered else answer_to(offered))
    if refusal is None:
        return protocol
    logger.warning("refused a WebSocket on %s: %s", socket.where, refusal)
    engine.counters.refused[cause] += 1
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_COMMAND_S):
            await socket.receive()
    await socket.close(*closed)
    return None


def _wants_protobuf(websocket: WebSocket) -> bool:
    if PROTOBUF in (websocket.scope.get("subprotocols") or ()):
        return True
    query = websocket.scope.get("query_string", b"")
    if not query:
        return False
    asked = parse_qs(query.decode("latin-1"))
    return "protobuf" in (*asked.get("format", ()), *asked.get("cf_protocol", ()))
