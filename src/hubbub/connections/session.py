"""The machine's side of a connection: what rooms, presence and the socket need of it.

Apps see a `hubbub.Connection`, which is made of a session and Starlette's WebSocket.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol

from ..codec import Payload
from ..positions import Joined
from ..presence import Info
from ..protocols import ClientProtocol, Resume
from ..protocols.raw import MAX_RESUME_IDS
from .socket import Socket
from .writer import Writer

_NOBODY: Final[frozenset[str]] = frozenset()


class Manager(Protocol):
    """What a session needs of its manager."""

    protocol: ClientProtocol

    def flush(self, session: Session) -> None:
        """Writes what is pending for it in its rooms."""

    def forget(self, session: Session, *, grace: bool) -> None:
        """Takes it out of everything. Idempotent."""


class Membership:
    """A session's place in a room.

    Attributes:
        joined: What the join gave; None before the answer.
        grace_s: How long its user stays when it is lost; None where it has no presence there.
    """

    __slots__ = ("grace_s", "joined")

    def __init__(self) -> None:
        self.joined: Joined | None = None
        self.grace_s: float | None = None


class Session:
    """One connection of one manager, from accept until its socket is gone.

    Attributes:
        id: A random name, which the app may know: 22 characters.
        user_id: The user that it belongs to.
        info: What the app says of the user.
        began_at: When the client came to the manager, on the loop's clock.
        socket: The socket.
        writer: The only way out.
        protocol: What its client speaks.
        continues: The ids of the connections that its client had before.
        memberships: The rooms that it is in, by name.
        joining: The joins that are under way, by room; None for none.
        departure: What tells the broker that it is gone.
        gone: Set when it is gone; made when first waited for.
        is_open: Whether it is registered.
    """

    __slots__ = (
        "__weakref__",
        "_manager",
        "began_at",
        "continues",
        "departure",
        "gone",
        "id",
        "info",
        "is_open",
        "joining",
        "memberships",
        "protocol",
        "socket",
        "user_id",
        "writer",
    )

    def __init__(
        self,
        manager: Manager,
        socket: Socket,
        user_id: str | None,
        info: Info,
        since: object = None,
        began_at: float = 0.0,
    ) -> None:
        self.id: str = secrets.token_urlsafe(16)
        self.user_id: str | None = user_id
        self.info: Info = info
        self.began_at: float = began_at
        self.socket: Socket = socket
        self.writer: Writer = socket.writer
        self.protocol: ClientProtocol = socket.protocol if socket.speaks_its_own else manager.protocol
        self.continues: frozenset[str] = frozenset(since.connection_ids) if isinstance(since, Resume) else _NOBODY
        self.memberships: dict[str, Membership] = {}
        self.joining: dict[str, asyncio.Future[None]] | None = None
        self.departure: asyncio.Task[None] | None = None
        self.gone: asyncio.Event | None = None
        self.is_open: bool = True
        self._manager = manager

    def __repr__(self) -> str:
        return f"<Session {self.id} user_id={self.user_id!r} {'open' if self.is_open else 'closed'}>"

    def write(self, payload: Payload) -> bool:
        """Sends a message behind what was published before, without waiting. False where it does not go out."""
        self.socket.flush()  # of all managers that share the socket
        return self.is_open and self.writer.write(self.protocol.message(payload))

    async def send(self, payload: Payload) -> bool:
        """Sends like `write`, and lets a burst to this connection be read."""
        sent = self.write(payload)
        if self.writer.congested:
            await self.writer.pace()
        return sent

    def flush(self) -> None:
        """Writes what is pending for it in its rooms."""
        self._manager.flush(self)

    def end(self, *, grace: bool) -> None:
        """Its socket is gone or going: takes it out of everything."""
        self._manager.forget(self, grace=grace)

    def mark_gone(self) -> bool:
        """Ends its registered life. False where it had ended."""
        if not self.is_open:
            return False
        self.is_open = False
        if self in self.socket.sessions:
            self.socket.sessions.remove(self)
            self.socket.former_ids = (*self.socket.former_ids, self.id)[-MAX_RESUME_IDS:]
        if self.gone is not None:
            self.gone.set()
        return True
