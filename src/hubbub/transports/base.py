"""What a transport is: how frames get to one socket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Event: TypeAlias = MutableMapping[str, Any]
ServerSend: TypeAlias = Callable[[Event], Awaitable[None]]


class Transport(ABC):
    """One accepted socket, below the outbox.

    All writes are whole frames made by `hubbub.frames`. So that nothing overtakes, the owner of the outbox says with
    `hold` when frames wait in it, a `send` is under way, or nothing may be written any more.
    """

    __slots__ = ()

    name: str

    @abstractmethod
    def hold(self, held: bool) -> None:
        """Lets `write` refuse, or no longer."""

    @abstractmethod
    def write(self, data: bytes) -> bool:
        """Writes frames at once, without waiting.

        Returns:
            False where it is held, takes nothing now, or is gone: nothing was written.
        """

    @abstractmethod
    def bound(self, max_bytes: int) -> None:
        """Says from how many buffered bytes on nothing is ready, at the latest."""

    @abstractmethod
    async def ready(self) -> None:
        """Waits until the socket takes something, or is gone."""

    @abstractmethod
    async def write_soon(self, data: bytes) -> None:
        """Waits until the socket takes something, and writes frames.

        Raises:
            OSError: The socket is gone.
        """

    @abstractmethod
    async def send(self, event: Event) -> None:
        """Hands an ASGI event to the server, with the server's own backpressure.

        Raises:
            OSError: The socket is gone.
        """

    @property
    @abstractmethod
    def buffered(self) -> int:
        """Bytes that were written and that the socket has not taken."""

    @property
    @abstractmethod
    def closing(self) -> bool:
        """Whether the socket is known to be gone or going."""

    @property
    def restarting(self) -> bool | None:
        """Whether the server closed it because it shuts down; None where that can't be told."""
        return None

    @abstractmethod
    def abort(self) -> None:
        """Ends the socket at once, without a Close frame. For a peer that does not read."""
