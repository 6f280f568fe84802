"""The contract of a transport, which writes frames to one socket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .ping import OpenPing

Event: TypeAlias = MutableMapping[str, Any]
ServerReceive: TypeAlias = Callable[[], Awaitable[Event]]
ServerSend: TypeAlias = Callable[[Event], Awaitable[None]]


class Transport(ABC):
    """One socket, below the outbox.

    All writes are whole frames made by `hubbub.protocols.frames`. To keep their order, the writer holds the transport
    (`hold`) while frames wait in the outbox, while a `send` is running, and after the end of the socket.
    """

    __slots__ = ()

    @abstractmethod
    def hold(self, held: bool) -> None:
        """Makes `write` refuse, or stops that."""

    @abstractmethod
    def write(self, data: bytes) -> bool:
        """Writes frames immediately, without waiting.

        Returns:
            False if nothing was written: the transport is held, the socket takes nothing now, or the client is gone.
        """

    @abstractmethod
    def set_high_water(self, max_bytes: int) -> None:
        """Sets the upper limit of the high-water mark: above the mark, `ready` waits."""

    @abstractmethod
    async def ready(self) -> None:
        """Waits until the socket takes data. Also returns if the client is gone."""

    @abstractmethod
    async def write_soon(self, data: bytes) -> None:
        """Waits until the socket takes data, and writes frames.

        Raises:
            OSError: The client is gone.
        """

    @abstractmethod
    async def send(self, event: Event) -> None:
        """Passes an ASGI event to the server, with the server's own backpressure.

        Raises:
            OSError: The client is gone.
        """

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes that were written, but that the socket has not taken yet."""

    @property
    @abstractmethod
    def closing(self) -> bool:
        """Whether the socket is closed or closing, as far as the server has noticed."""

    @property
    def restarting(self) -> bool | None:
        """Whether the server closed the socket because it is shutting down; None if the server does not show that."""
        return None

    def ping(self, on_data: Callable[[], None]) -> OpenPing | None:
        """Sends a ping to learn whether the client is still there.

        Args:
            on_data: Called when data arrives from the client.

        Returns:
            The open ping, which the caller must end; None if the server gives no access, or silence would prove
            nothing.
        """
        return None

    @abstractmethod
    def watch(self, admit: Callable[[], bool]) -> None:
        """Reports each control frame and each fragment of a message, if the server gives access to them.

        Args:
            admit: Called for each frame. Returns False to ignore the frame, because the client has sent too many.
        """

    @property
    def is_interruptible(self) -> bool:
        """Whether a pending ``receive`` is canceled before a close, which the server might not send otherwise."""
        return False

    def receiving(self, receive: ServerReceive) -> ServerReceive:
        """Returns the ``receive`` to use instead of the server's."""
        return receive

    @abstractmethod
    def limit_message_size(self, max_bytes: int | None) -> None:
        """Limits the size of a message while it arrives, if the server has such a limit.

        Args:
            max_bytes: The limit; None for the server's own.
        """

    @property
    def assembling(self) -> bool:
        """Whether a message has arrived in part."""
        return False

    @property
    def message_too_big(self) -> bool:
        """Whether the server closed the socket because a message was larger than `limit_message_size` allows."""
        return False

    @abstractmethod
    def maintain(self) -> None:
        """Does the work that was deferred until the socket takes more. Must be called regularly."""

    @abstractmethod
    def stop_reading(self) -> None:
        """Stops reading after a short time, because only the client's Close frame still matters."""

    @property
    def reading_stopped(self) -> bool:
        """Whether reading has stopped after `stop_reading`, so that a Close frame of the client goes unread."""
        return False

    @property
    def lingers(self) -> bool:
        """Whether the socket is still open after its handler, so that it may need an `abort`."""
        return self.buffered > 0

    @abstractmethod
    def abort(self) -> None:
        """Resets the connection immediately, without a Close frame. For a client that does not read."""
