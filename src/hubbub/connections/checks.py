"""The regular check of one socket, which the sweeper calls once a second.

It ends a socket whose client is gone, stalled, idle or too slow, or whose token has expired. After the end, it cancels
a handler that does not know of it (`Handler.overdue`), and aborts the connection if the client does not read its Close
frame.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Final

from ..close import CloseCode
from .socket import Socket, State

logger: Final = logging.getLogger("hubbub")


def check(socket: Socket, now: float) -> None:
    """Checks a socket, and ends it if it breaks a rule.

    Args:
        socket: The socket.
        now: The loop's time.
    """
    if socket.closed is None:
        _check_open(socket, now)
    elif socket.state is not State.REFUSED:
        _check_ended(socket, socket.closed.code, now)


def _check_open(socket: Socket, now: float) -> None:
    accepted, limits = socket.state is State.OPEN, socket.limits
    if socket.reader.neglected() and accepted:
        socket.reader.read_ahead(socket.manager.tasks)
    if socket.transport.closing:
        socket.on_lost()
    elif socket.writer.stalled_for(now) >= limits.stall_timeout_s:
        socket.on_lost()
        socket.abort("the client does not read")
    elif accepted and socket.expired:
        socket.manager.counters.refused[CloseCode.TOKEN_EXPIRED.name.lower()] += 1
        socket.close_soon(CloseCode.TOKEN_EXPIRED, grace=False)
    elif socket.reader.assembling_for(now) >= (limits.message_timeout_s or inf):
        socket.record_limit(CloseCode.MESSAGE_TOO_SLOW)
        socket.close_soon(CloseCode.MESSAGE_TOO_SLOW)
    elif accepted and not socket.only_reads and socket.reader.silent_for(now) >= (limits.idle_timeout_s or inf):
        logger.info("closing a connection on %s: no message in %g s", socket.where, limits.idle_timeout_s)
        socket.manager.counters.refused[CloseCode.IDLE.name.lower()] += 1
        socket.close_soon(CloseCode.IDLE)
    else:
        socket.transport.maintain()
        if socket.listener is not None:
            socket.listener.check(now)


def _check_ended(socket: Socket, code: int, now: float) -> None:
    limits, transport = socket.limits, socket.transport
    shutdown = transport.restarting or code == CloseCode.SERVICE_RESTART.code
    patience_s = limits.shutdown_timeout_s if shutdown else limits.handler_timeout_s
    if socket.handler.overdue(now, socket.ended_at, patience_s):
        socket.cancel_handler()
    # A closed transport first sends its buffer, which may take forever.
    if (transport.buffered or transport.reading_stopped) and now - socket.ended_at >= limits.close_timeout_s:
        socket.abort("the client did not read its Close frame")
