"""The internal side of a connection, used by rooms, presence and the socket.

Apps see a `hubbub.Connection`, which combines a session with Starlette's WebSocket.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

from ..codec import Payload
from ..positions import Joined, Position
from ..presence import Info
from ..protocols import ClientProtocol
from .socket import Socket
from .writer import Writer


class Manager(Protocol):
    """The part of a manager that a session uses."""

    protocol: ClientProtocol

    def flush(self, session: Session) -> None:
        """Writes the pending messages of the session's rooms."""

    def forget(self, session: Session, *, grace: bool) -> None:
        """Removes the session from the registry and its rooms. Idempotent."""


class Listener(Protocol):
    """The handler of a client that subscribes to rooms itself."""

    def presents(self, channel: str) -> Position | None:
        """Returns the position that the client presented for a room that the app joins it to; None for none."""

    def joined(self, channel: str, position: Position | None) -> bytes | None:
        """Handles that the app joined the client to a room.

        Args:
            channel: The channel of the room.
            position: The position after which the client receives every message, in a room with positions.

        Returns:
            The frame that tells the client; None for none. It precedes all frames of the room.
        """

    def left(self, channel: str) -> bytes | None:
        """Handles that the app or an instruction removed the client from a room. It may not have been in the room yet.

        Returns:
            The frame that tells a client that was in the room. It follows all frames of the room.
        """

    def authorized_until(self, ends_at: float | None) -> bool:
        """Handles that an instruction changed how long the client is authorized.

        Args:
            ends_at: The end, as a Unix time in seconds; None for no end.

        Returns:
            False if the socket has to end then.
        """

    def lost_place(self, channel: str) -> None:
        """Handles a gap: messages of a room are lost, so later ones do not continue what the client has."""

    def renumbered(self, channel: str, position: Position) -> bytes | None:
        """Handles that the numbering of a room goes on in another epoch. No message is lost.

        Args:
            channel: The channel of the room.
            position: The position of the client, in the new epoch.

        Returns:
            The frame that tells the client; None for none. It precedes all messages of the new epoch.
        """

    def ended(self) -> None:
        """Handles the end of the session."""


class Membership:
    """A session's place in a room.

    Attributes:
        began_at: When the attempt to join began, on the loop's clock.
        joined: The result of the join; None while the join is pending.
        grace_s: How long the user stays present after the connection is lost; None if presence is off for the room.
        room_info: The app's data about the connection in this room.
    """

    __slots__ = ("began_at", "grace_s", "joined", "room_info")

    def __init__(self, began_at: float) -> None:
        self.began_at: float = began_at
        self.joined: Joined | None = None
        self.grace_s: float | None = None
        self.room_info: Info = None


class Session:
    """One connection of one manager, from its registration to its end.

    Attributes:
        id: A random id of 22 characters. Apps see it.
        user_id: The user that the connection belongs to; None if it belongs to no user.
        info: The app's data about the user.
        began_at: When its authentication began, or the handler called `connect`, on the loop's clock.
        socket: The socket.
        writer: The writer of the socket.
        protocol: The client's protocol.
        memberships: The rooms that the session is in, by name.
        joining: The pending joins, by room; None for none.
        departure: The task that reports the end of the session to the broker.
        gone: An event that is set when the session ends. Created by the first waiter.
        is_open: Whether the session is registered.
        listener: The handler of a client that subscribes to rooms itself; None for any other.
    """

    __slots__ = (
        "__weakref__",
        "_manager",
        "began_at",
        "departure",
        "gone",
        "id",
        "info",
        "is_open",
        "joining",
        "listener",
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
        began_at: float = 0.0,
    ) -> None:
        self.id: str = secrets.token_urlsafe(16)
        self.user_id: str | None = user_id
        self.info: Info = info
        self.began_at: float = began_at
        self.socket: Socket = socket
        self.writer: Writer = socket.writer
        self.protocol: ClientProtocol = socket.protocol if socket.has_own_protocol else manager.protocol
        self.memberships: dict[str, Membership] = {}
        self.joining: dict[str, asyncio.Future[None]] | None = None
        self.departure: asyncio.Task[None] | None = None
        self.gone: asyncio.Event | None = None
        self.is_open: bool = True
        self.listener: Listener | None = None
        self._manager = manager

    def __repr__(self) -> str:
        return f"<Session {self.id} user_id={self.user_id!r} {'open' if self.is_open else 'closed'}>"

    def write(self, payload: Payload) -> bool:
        """Sends a message after all messages published earlier, without waiting.

        Returns:
            False if the client is gone or the message was dropped.
        """
        self.socket.flush()  # not only this session: other managers may share the socket
        return self.is_open and self.writer.write(self.protocol.message(payload))

    async def send(self, payload: Payload) -> bool:
        """Sends like `write`, and pauses in a burst, so that the client has time to read."""
        sent = self.write(payload)
        if self.writer.congested:
            await self.writer.pace()
        return sent

    def authorize_until(self, ends_at: float | None) -> None:
        """Changes how long its client is authorized: until a Unix time in seconds; None for no end."""
        if self.listener is None or not self.listener.authorized_until(ends_at):
            self.socket.expires_at = ends_at

    def flush(self) -> None:
        """Writes the pending messages of its rooms."""
        self._manager.flush(self)

    def end(self, *, grace: bool) -> None:
        """Ends the session: removes it from the registry and its rooms. Idempotent."""
        self._manager.forget(self, grace=grace)

    def mark_gone(self) -> bool:
        """Marks the session as ended and wakes its waiters. Returns False if it had already ended."""
        if not self.is_open:
            return False
        self.is_open = False
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.ended()
        if self in self.socket.sessions:
            self.socket.sessions.remove(self)
        if self.gone is not None:
            self.gone.set()
        return True
