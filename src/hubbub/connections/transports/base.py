"""What a transport is: how frames get to one socket."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from .question import Question

Event: TypeAlias = MutableMapping[str, Any]
ServerReceive: TypeAlias = Callable[[], Awaitable[Event]]
ServerSend: TypeAlias = Callable[[Event], Awaitable[None]]


class Transport(ABC):
    """One accepted socket, below the outbox.

    All writes are whole frames made by `hubbub.protocols.frames`. To keep their order, the owner of the outbox calls
    `hold` while frames wait in it, while a `send` is under way, and once nothing may be written any more.
    """

    __slots__ = ()

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

    def ask(self, heard: Callable[[], None]) -> Question | None:
        """Asks the peer for a sign of life.

        Args:
            heard: Called when something comes from it.

        Returns:
            The question; None where the server gives no way to ask, or silence would say nothing.
        """
        return None

    @abstractmethod
    def watch(self, admit: Callable[[], bool]) -> None:
        """Has each control frame and each fragment of a message counted, where the server lets that be known.

        Args:
            admit: Called for each. False where it is one too many: the frame has no effect then.
        """

    def receiving(self, receive: ServerReceive) -> ServerReceive:
        """Gives the ``receive`` to use instead of the server's, which has the server read on in time."""
        return receive

    @abstractmethod
    def bound_inbound(self, max_bytes: int | None) -> None:
        """Sets how large a message may get while it comes in, where the server has a bound. None is its own."""

    @property
    def assembling(self) -> bool:
        """Whether a part of a message has come, and the rest is waited for."""
        return False

    @property
    def outgrown(self) -> bool:
        """Whether the server closed it because a message passed `bound_inbound`."""
        return False

    @abstractmethod
    def tend(self) -> None:
        """Does what was put off until the socket takes more. To be called now and then."""

    @abstractmethod
    def hush(self) -> None:
        """Reads on for a moment only: the connection is closing, and the peer's Close is all that is wanted."""

    @property
    def deaf(self) -> bool:
        """Whether the peer said too much after `hush`, so that its Close is not read any more."""
        return False

    @property
    def lingers(self) -> bool:
        """Whether the socket outlives its handler, and can be ended: it has to be seen to."""
        return self.buffered > 0

    @abstractmethod
    def abort(self) -> None:
        """Ends the socket at once, without a Close frame. For a peer that does not read."""
