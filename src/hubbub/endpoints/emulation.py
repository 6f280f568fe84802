"""The commands of clients that have a stream in the place of a WebSocket, and send each message by an HTTP request.

Theory of operation. A stream has a `Mailbox`. The posts of its client are put into it, and its socket receives from it.
The reply to ``connect`` tells the client the secret *session* of the mailbox and its *node*, the worker that has it.
The client repeats both with each post.

A post may arrive at any worker. That one sends it to the node, in parts that fit a request between workers, and waits
for the answer before it sends the next post of the session. So the posts that arrive at one worker are handled in the
order of their arrival. Between workers there is none; an SDK that needs an order waits for the reply.

A session is looked up by its hash, so that the time of the lookup reveals nothing of it. Where the user of a client is
known from the request for the stream, as by a cookie, and not from a token in ``connect``, the session is *bound*: its
posts must come from the same user. The text of the session says so, for a worker that does not have it.

Everything is bounded: the posts that wait for their turn or in a mailbox, in number and in bytes, and the requests to
other workers.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias

from ..brokers.base import MAX_REQUEST_BYTES, PubSub
from ..codec import dumps, loads
from ..connections.transports import Event
from ..errors import BrokerUnavailable, NoSuchWorker
from ..protocols.centrifugo.encoding import Post

LETTER: Final = b"e"
"""The first byte of the requests that an `Emulation` answers."""

MAX_POSTS: Final = 1024
"""Maximum number of posts of one session that wait: in its mailbox, and on each worker for their turn."""

MAX_POST_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of these posts. One that is larger on its own has its turn when no other waits."""

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of all posts that wait for their turn on one worker."""

MAX_FORWARDED: Final = 64
"""Maximum number of requests to other workers in flight."""

FORWARD_S: Final = 5.0
"""Seconds that another worker has to take a part of a post."""

TAKEN, FORBIDDEN, UNKNOWN, TOO_LARGE, TOO_MANY, UNAVAILABLE = 204, 403, 404, 413, 429, 503
"""The answers to a post, as HTTP statuses."""

_PART_BYTES: Final = MAX_REQUEST_BYTES - 4096
_MAX_USER_BYTES: Final = 2048
_MAX_PARTIAL: Final = 64
_SECRET_CHARS: Final = 32
_BOUND: Final = ".user"
_SESSION: Final = re.compile(rf"[0-9a-f]{{{_SECRET_CHARS}}}(?:{re.escape(_BOUND)})?")
_NODE: Final = re.compile(r"[0-9a-f]{1,64}")

UserOf: TypeAlias = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class _Forwarded:
    """One part of a post, as a worker forwards it to the worker that holds the stream.

    Attributes:
        secret: The secret of the session.
        endpoint: The path of the endpoint at which it came.
        user: The user who sent it, if the session is bound.
        sender: The worker.
        index: The place of the part in the post.
        is_last: Whether no other part follows.
        is_text: Whether the post is text.
    """

    secret: str
    endpoint: str
    user: str | None
    sender: str
    index: int = 0
    is_last: bool = True
    is_text: bool = True


class Mailbox:
    """The commands of one client, until its socket receives them.

    Args:
        endpoint: The path of the endpoint.
        node: The worker.
        first: The message that came with the request for the stream.
        max_post_bytes: The maximum size of a post; None for no limit.
        on_overflow: Called when more waits than is allowed.
    """

    def __init__(
        self,
        endpoint: str,
        node: str,
        first: str | bytes,
        max_post_bytes: int | None,
        on_overflow: Callable[[], None],
    ) -> None:
        self.endpoint: str = endpoint
        self.node: str = node
        self.secret: str = secrets.token_hex(_SECRET_CHARS // 2)
        self._is_bound = False
        self._user: str | None = None
        self._max_post_bytes = max_post_bytes
        self._on_overflow = on_overflow
        self._waiting: deque[Event] = deque([{"type": "websocket.connect"}, _received(first)])
        self._bytes = len(first)
        self._partial: dict[str, bytearray] = {}
        self._changed = asyncio.Event()
        self._ended = False

    def bind(self, user: str | None, *, by_handshake: bool) -> str:
        """Records the user of the client, and returns the session for the client.

        Args:
            user: The user; None for an anonymous client.
            by_handshake: Whether the user is known from the handshake.
        """
        self._is_bound, self._user = by_handshake and user is not None, user
        return self.secret + (_BOUND if self._is_bound else "")

    async def receive(self) -> Event:
        """Receives the next message, as the ``receive`` of a WebSocket does."""
        while not self._waiting and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._ended:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        event = self._waiting.popleft()
        self._bytes -= len(event.get("text") or event.get("bytes") or ())
        return event

    def take(self, post: _Forwarded, part: bytes) -> int:
        """Takes a part of a post. Returns the answer to it."""
        if not hmac.compare_digest(post.secret, self.secret) or post.endpoint != self.endpoint or self._ended:
            return UNKNOWN
        if self._is_bound and post.user != self._user:
            return FORBIDDEN
        if post.index or not post.is_last:
            if not post.index:
                if post.sender not in self._partial and len(self._partial) >= _MAX_PARTIAL:
                    return TOO_MANY
                self._partial[post.sender] = bytearray()
            whole = self._partial.get(post.sender)
            if whole is None or len(whole) != post.index:
                return UNAVAILABLE  # a part before it is lost
            if self._max_post_bytes is not None and len(whole) + len(part) > 4 * self._max_post_bytes:
                del self._partial[post.sender]
                return TOO_LARGE
            whole += part
            if not post.is_last:
                return TAKEN
            part = bytes(self._partial.pop(post.sender))
        return self._put(part.decode() if post.is_text else part)

    def _put(self, data: str | bytes) -> int:
        if self._waiting and (len(self._waiting) >= MAX_POSTS or self._bytes + len(data) > MAX_POST_BYTES):
            self._on_overflow()
            return TOO_MANY
        self._waiting.append(_received(data))
        self._bytes += len(data)
        self._changed.set()
        return TAKEN

    def end(self) -> None:
        """Ends what `receive` gives: the client is gone."""
        self._ended = True
        self._waiting.clear()
        self._partial.clear()
        self._changed.set()


def _received(data: str | bytes) -> Event:
    return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}


@dataclass(slots=True)
class _Queue:
    """The posts of one session that arrived here, and wait for their turn or have it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    posts: int = 0
    bytes: int = 0


class Emulation:
    """The mailboxes of this worker, and the way to those of others.

    Args:
        broker: Connects the workers.
    """

    def __init__(self, broker: PubSub) -> None:
        self._broker = broker
        self._mailboxes: dict[bytes, Mailbox] = {}
        self._queues: dict[bytes, _Queue] = {}
        self._waiting_bytes = 0
        self._forwarded = 0

    @property
    def node(self) -> str:
        """The name of this worker."""
        return self._broker.worker

    @contextmanager
    def holding(self, mailbox: Mailbox) -> Iterator[None]:
        """Has posts put into a mailbox, in the block."""
        key = _hashed(mailbox.secret)
        self._mailboxes[key] = mailbox
        try:
            yield
        finally:
            del self._mailboxes[key]
            mailbox.end()

    async def post(self, endpoint: str, post: Post, user_of: UserOf) -> int:
        """Puts a post into its mailbox, on this worker or another.

        Args:
            endpoint: The path of the endpoint at which it came.
            post: The post.
            user_of: Authenticates the sender. Called if the session is bound.

        Returns:
            The status of the answer.
        """
        if _SESSION.fullmatch(post.session) is None or _NODE.fullmatch(post.node) is None:
            return UNKNOWN
        secret = post.session[:_SECRET_CHARS]
        size = len(post.data)
        async with self._turn(_hashed(secret), size) as has_turn:
            if not has_turn:
                return TOO_MANY
            user = await user_of() if post.session.endswith(_BOUND) else None
            said = _Forwarded(secret, endpoint, user, self.node, is_text=isinstance(post.data, str))
            data = post.data.encode() if isinstance(post.data, str) else post.data
            if post.node == self.node:
                return self._take(said, data)
            return await self._forward(post.node, said, data)

    @asynccontextmanager
    async def _turn(self, key: bytes, size: int) -> AsyncIterator[bool]:
        """Waits until the earlier posts of a session are done. Gives False if too many wait."""
        queue = self._queues.get(key) or _Queue()
        is_full = queue.posts >= MAX_POSTS or (queue.posts and queue.bytes + size > MAX_POST_BYTES)
        if is_full or self._waiting_bytes + size > MAX_WAITING_BYTES:
            yield False
            return
        self._queues[key] = queue
        queue.posts += 1
        queue.bytes += size
        self._waiting_bytes += size
        try:
            async with queue.turn:
                yield True
        finally:
            queue.posts -= 1
            queue.bytes -= size
            self._waiting_bytes -= size
            if not queue.posts:
                del self._queues[key]

    def _take(self, post: _Forwarded, part: bytes) -> int:
        mailbox = self._mailboxes.get(_hashed(post.secret))
        return UNKNOWN if mailbox is None else mailbox.take(post, part)

    async def _forward(self, node: str, post: _Forwarded, data: bytes) -> int:
        """Sends a post to the worker that has its mailbox, part by part."""
        if self._forwarded >= MAX_FORWARDED or len(post.user or "") * 4 > _MAX_USER_BYTES:
            return UNAVAILABLE
        self._forwarded += 1
        status = TAKEN
        try:
            for start in range(0, len(data) or 1, _PART_BYTES):
                part = data[start : start + _PART_BYTES]
                is_last = start + _PART_BYTES >= len(data)
                fields = (post.secret, post.endpoint, post.user, post.sender, start, is_last, post.is_text)
                head = dumps(fields)
                answer = await self._broker.ask(node, b"%b%b\n%b" % (LETTER, head, part), FORWARD_S)
                status = int(answer)
                if status != TAKEN:
                    break
        except NoSuchWorker:
            return UNKNOWN
        except BrokerUnavailable:
            return UNAVAILABLE
        finally:
            self._forwarded -= 1
        return status

    async def answer(self, payload: bytes) -> bytes:
        """Takes a part of a post that arrived at another worker.

        Args:
            payload: The request, without its first byte.
        """
        head, _, part = payload.partition(b"\n")
        fields: list[Any] = loads(head)
        return b"%d" % self._take(_Forwarded(*fields), part)


def _hashed(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
