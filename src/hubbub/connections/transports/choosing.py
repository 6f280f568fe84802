"""Chooses the transport of a socket: direct writes if they are proven to work, otherwise the server's ASGI ``send``."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from types import MethodType
from typing import Any, Final, NamedTuple

from .asgi import AsgiTransport
from .base import ServerSend, Transport
from .trial import flaw_in, make_protocol
from .uvicorn import UvicornProtocol, UvicornTransport, flaw_in_parts
from .uvicorn_http import prepare_http

logger: Final = logging.getLogger("hubbub")

_COST: Final = (
    "Until a hubbub release supports it, a broadcast costs several times the CPU, and a client that does not read is "
    "aborted only when the server closes it"
)


class Detour(NamedTuple):
    """The reason why frames do not go directly to the socket, and the way they go instead.

    Attributes:
        text: The text for the log.
        fault: Whether direct writes should work on this server, but a change in it prevents them.
    """

    text: str
    fault: bool = False


class Detours:
    """The detours of one app, each of which is logged once."""

    def __init__(self) -> None:
        self._known: set[Detour] = set()

    def log(self, detour: Detour | None) -> None:
        """Logs why frames do not go directly to the socket, unless it is known."""
        if detour is not None and detour not in self._known:
            self._known.add(detour)
            level = logging.WARNING if detour.fault else logging.INFO
            logger.log(level, "not writing directly to the socket, but through %s", detour.text)


class Verdict(NamedTuple):
    """The result of the trial of uvicorn's own WebSocket protocol.

    Attributes:
        protocol: The class; None if it could not be created.
        flaw: The first requirement of direct writes that the class does not meet; None if it meets all.
    """

    protocol: type | None
    flaw: str | None


_verdicts: dict[type[asyncio.AbstractEventLoop], Verdict] = {}


async def prepare() -> None:
    """Tries uvicorn's protocols on the running event loop, if uvicorn serves the app. Once for each type of loop."""
    kind = type(asyncio.get_running_loop())
    # A server that starts loads these modules. Importing uvicorn does not.
    serves = any(name.startswith("uvicorn.protocols.websockets.") for name in sys.modules)
    if serves and kind not in _verdicts:
        made: list[type] = []

        def make(app: Any, settings: dict[str, Any]) -> Any:
            protocol = make_protocol(app, settings)
            made.append(type(protocol))
            return protocol

        flaw = await flaw_in(make)
        _verdicts[kind] = Verdict(made[0] if made else None, flaw)
    await prepare_http()


def transport_for(send: ServerSend, end_task: Callable[[], None]) -> tuple[Transport, Detour | None]:
    """Chooses the transport of a socket.

    Args:
        send: The server's ASGI ``send``.
        end_task: Ends the app's task: the last resort on a server that gives no access to its sockets.

    Returns:
        The transport, and the detour; None if frames go directly to the socket.
    """
    found = protocol_of(send)
    if isinstance(found, Detour):
        text = f"the server's ASGI send, message by message: {found.text}"
        return AsgiTransport(send, end_task), found._replace(text=text)
    transport = UvicornTransport(found, send)
    return transport, None if transport.detour is None else Detour(transport.detour)


def protocol_of(send: ServerSend) -> UvicornProtocol | Detour:
    """Finds the uvicorn protocol behind an ASGI ``send``, if frames may be written directly.

    Returns:
        The protocol, or the reason why there is none.
    """
    owner: Any = getattr(send, "__self__", None)
    if owner is None and (hasattr(send, "__wrapped__") or "<locals>" in repr(send)):
        return Detour("another middleware wraps send")
    if owner is None and isinstance(send, partial):
        owner = getattr(send.func, "__self__", None)  # daphne's
    if owner is None:
        return Detour("unknown server")
    cls = type(owner)
    name = f"{cls.__module__}.{cls.__qualname__}"
    verdict = _verdicts.get(type(asyncio.get_running_loop()))
    uvicorns = cls.__module__.startswith("uvicorn.")
    if uvicorns and verdict is None:
        return Detour(f"no manager has started on this event loop yet, so {name} is untested")
    if uvicorns and verdict is not None and verdict.protocol is None:
        return _fault(name, verdict.flaw)
    if verdict is None or cls is not verdict.protocol:
        return Detour(f"{name} is not uvicorn's default WebSocket protocol")
    if type(send) is not MethodType:
        return Detour("another middleware wraps send")  # a wrapper that copies the attributes of ``send``
    flaw = verdict.flaw or flaw_in_parts(owner)
    if flaw is not None:
        return _fault(name, flaw)
    protocol: UvicornProtocol = owner
    return protocol


def _fault(name: str, flaw: str | None) -> Detour:
    return Detour(
        f"{name} of uvicorn {version('uvicorn')} does not behave as direct writes require: {flaw}. {_COST}", fault=True
    )
