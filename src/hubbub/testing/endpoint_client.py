"""A client of an endpoint, for the app's own tests, over Starlette's TestClient.

Theory of operation. A thread reads what the server sends, because the socket of a TestClient blocks without a limit.
The thread answers pings, and queues everything else. The test takes from the queue, and waits for a limited time.
Several threads of a test may wait at once: each takes what is next, and keeps for the others what is theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from ..codec import Kind, Payload, dumps
from ..endpoints.refusals import MessageInvalid
from ..errors import HubbubError, InvalidArgument, counted, shown
from ..positions import Position
from ..protocols.centrifugo import messages
from ..protocols.centrifugo.json_client import command_text, replies_in
from .events import (
    ClientInfo,
    Connected,
    Event,
    HistoryPage,
    Publication,
    Subscribed,
    client_info,
    connected,
    event_of,
    history_page,
    subscribed,
    value_of,
)
from .identified import identified_as

if TYPE_CHECKING:  # it needs httpx2, and tests without clients do not
    from starlette.testclient import TestClient

T = TypeVar("T")
_R = TypeVar("_R", bound=messages.Result)
_NORMAL = 1000
_ABNORMAL = 1006  # RFC 6455 section 7.1.5: the socket ended without a Close frame
_JOIN_S = 1.0


class RequestRefused(HubbubError):
    """The endpoint answered a request with an error.

    Attributes:
        code: The code: 103 for no permission, 104 for no such method, 422 for a message that does not validate, and the
            status of an `HTTPException`.
        message: The reason, for the developer of the client.
        temporary: Whether an SDK may try again.
    """

    def __init__(self, code: int, message: str, temporary: bool) -> None:
        super().__init__(f"{code}: {message}{' (temporary)' if temporary else ''}")
        self.code = code
        self.message = message
        self.temporary = temporary


class Disconnected(HubbubError):
    """The server closed the connection.

    Attributes:
        code: The close code. An SDK does not reconnect after codes from 3500 to 3999.
        reason: The reason, for the developer of the client.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed the connection: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class _Socket(Protocol):
    def send_text(self, data: str) -> None: ...
    def receive_text(self) -> str: ...


class EndpointClient:
    """A client that is connected to an endpoint. `endpoint_client` makes it.

    A request waits for its reply. Events that arrive in the meantime are kept, in order, for `receive`. Every call that
    waits raises `Disconnected` if the server has closed the connection, and AssertionError if nothing arrives in time,
    with a text that names what it waited for. Several threads may use a client at the same time.

    Attributes:
        connected: The server's reply to the connection: its id, the data and the rooms of ``Welcome``.
    """

    connected: Connected

    def __init__(self, socket: _Socket, timeout_s: float) -> None:
        self._socket: _Socket | None = socket
        self._timeout_s = timeout_s
        self._said: deque[messages.Reply | messages.Push | Disconnected] = deque()
        self._changed = Condition()  # guards what follows, and the queue above
        self._asked: set[int] = set()
        self._replies: dict[int, messages.Reply] = {}
        self._events: deque[Event] = deque()
        self._closed: Disconnected | None = None
        self._numbers = count(1)

    @overload
    def rpc(self, method: str, data: Any = None, *, timeout_s: float | None = None) -> Any: ...
    @overload
    def rpc(self, method: str, data: Any = None, *, returns: type[T], timeout_s: float | None = None) -> T: ...
    @overload
    def rpc(self, method: str, data: Any = None, *, returns: Any, timeout_s: float | None = None) -> Any: ...
    def rpc(self, method: str, data: Any = None, *, returns: Any = Any, timeout_s: float | None = None) -> Any:
        """Calls a function under ``@live.on``, and returns its reply.

            said = ann.rpc("say", Say(text="hello"), returns=Said)

        Args:
            method: The name of the method.
            data: The message: a value for JSON, or a Pydantic model. None for no message.
            returns: The type of the reply, such as a model. By default, the value of the JSON is returned as it is.
            timeout_s: Seconds to wait at most, instead of those of `endpoint_client`.

        Raises:
            RequestRefused: The endpoint answered with an error.
            AssertionError: The reply is not what ``returns`` says, or did not arrive in time.
        """
        what = f"the reply to {method!r}"
        result = self._ask(messages.RPCRequest(_payload(data), method), messages.RPCResult, what, timeout_s)
        return _typed(value_of(result.data), returns, what)

    def send(self, method: str, data: Any = None) -> None:
        """Sends a message to a function under ``@live.on``. There is no reply, not even if the function fails.

        The endpoint handles the requests of a client in order, so the function has run when a later `rpc` returns,
        unless that one is ``concurrent``.

        Args:
            method: The name of the method.
            data: The message: a value for JSON, or a Pydantic model.
        """
        self._send(messages.Command(0, messages.SendRequest(_payload({"method": method, "data": data}))))

    def subscribe(
        self, room: str, *, data: Any = None, token: str | None = None, since: Position | None = None
    ) -> Subscribed:
        """Subscribes to a room.

        Args:
            room: The room.
            data: A message for the function under ``@live.room``.
            token: A subscription token, for a function with ``token=True``.
            since: The position after which the client asks for all messages, as an SDK does when it reconnects.

        Raises:
            RequestRefused: The endpoint answered with an error, such as 103 if the function says no.
        """
        epoch, offset = since or ("", 0)
        request = messages.SubscribeRequest(
            room, token or "", recover=since is not None, epoch=epoch, offset=offset, data=_payload(data)
        )
        return subscribed(room, self._ask(request, messages.SubscribeResult, f"the subscription to {room!r}"))

    def unsubscribe(self, room: str) -> None:
        """Ends a subscription.

        Args:
            room: The room.
        """
        request = messages.UnsubscribeRequest(room)
        self._ask(request, messages.UnsubscribeResult, f"the end of the subscription to {room!r}")

    def publish(self, room: str, data: Any) -> None:
        """Publishes into a room, through a function under ``@live.publish``.

        Args:
            room: A room that the client is subscribed to.
            data: The message: a value for JSON, or a Pydantic model.

        Raises:
            RequestRefused: The endpoint answered with an error, such as 103 if no function allows it.
        """
        request = messages.PublishRequest(room, _payload(data))
        self._ask(request, messages.PublishResult, f"the reply to a publication in {room!r}")

    def presence(self, room: str) -> dict[str, ClientInfo]:
        """Returns the clients in a room, by their ids.

        Args:
            room: A room that the client is subscribed to.

        Raises:
            RequestRefused: The endpoint answered with an error, such as 108 without ``client_presence=True``.
        """
        request = messages.PresenceRequest(room)
        result = self._ask(request, messages.PresenceResult, f"the presence of {room!r}")
        return {client: client_info(info) for client, info in result.presence.items()}

    def history(
        self, room: str, *, limit: int = -1, since: Position | None = None, reverse: bool = False
    ) -> HistoryPage:
        """Returns the history of a room.

        Args:
            room: A room that the client is subscribed to.
            limit: The number of messages; -1 for all, 0 for the position alone.
            since: The position after which the messages begin, or before which with ``reverse``.
            reverse: Whether the newest message comes first.

        Raises:
            RequestRefused: The endpoint answered with an error, such as 108 without ``client_history=True``.
        """
        after = None if since is None else messages.StreamPosition(since.offset, since.epoch)
        request = messages.HistoryRequest(room, limit, after, reverse)
        return history_page(room, self._ask(request, messages.HistoryResult, f"the history of {room!r}"))

    def receive(self, *, timeout_s: float | None = None) -> Event:
        """Returns the next event: the oldest that was not returned yet, or one that it waits for.

        Args:
            timeout_s: Seconds to wait at most, instead of those of `endpoint_client`.
        """

        def take() -> Event | None:
            return self._events.popleft() if self._events else None

        return cast("Event", self._until(take, "an event", timeout_s))  # mypy makes object of a union

    @overload
    def receive_from(self, room: str, *, timeout_s: float | None = None) -> Any: ...
    @overload
    def receive_from(self, room: str, returns: type[T], *, timeout_s: float | None = None) -> T: ...
    @overload
    def receive_from(self, room: str, returns: Any, *, timeout_s: float | None = None) -> Any: ...
    def receive_from(self, room: str, returns: Any = Any, *, timeout_s: float | None = None) -> Any:
        """Returns the next message in a room: the oldest that was not returned yet, or one that it waits for.

            assert ann.receive_from("chat:lobby", Said) == Said(user_id="ann", text="hello")

        Other events, and messages of other rooms, stay for `receive`.

        Args:
            room: The room; ``"$user"`` for ``send_to_user``, ``"$everyone"`` for a broadcast to everyone.
            returns: The type of the message, such as a model. By default, the value of the JSON is returned as it is.
            timeout_s: Seconds to wait at most, instead of those of `endpoint_client`.

        Raises:
            AssertionError: The message is not what ``returns`` says, or did not arrive in time.
        """

        def take() -> Publication | None:
            for event in self._events:
                if isinstance(event, Publication) and event.room == room:
                    self._events.remove(event)
                    return event
            return None

        received = self._until(take, f"a message in {room!r}", timeout_s)
        return _typed(received.data, returns, f"the message in {room!r}")

    def unread(self) -> list[Event]:
        """Returns the events that `receive` has not returned yet, without waiting.

        It has everything that the server sent before the reply to the last request, so a test can make any request and
        then assert that the client received nothing. The events stay for `receive`.
        """
        with self._changed:
            return list(self._events)

    def _connect(self, token: str | None, data: Any) -> None:
        request = messages.ConnectRequest(token or "", _payload(data))
        self.connected = connected(self._ask(request, messages.ConnectResult, "the reply to the connection"))

    def _ask(self, request: messages.Request, kind: type[_R], wanted: str, timeout_s: float | None = None) -> _R:
        """Sends a request, and waits for its reply."""
        number = next(self._numbers)
        self._asked.add(number)
        try:
            self._send(messages.Command(number, request))
            reply = self._until(lambda: self._replies.pop(number, None), wanted, timeout_s)
        finally:
            self._asked.discard(number)
        if isinstance(reply.result, messages.Error):
            raise RequestRefused(reply.result.code, reply.result.message, reply.result.temporary)
        assert isinstance(reply.result, kind)
        return reply.result

    def _until(self, find: Callable[[], T | None], wanted: str, timeout_s: float | None) -> T:
        """Takes what the server said, in order, until something is found among the replies and events."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = monotonic() + timeout_s
        with self._changed:
            while (found := find()) is None:
                if self._closed is not None:
                    raise Disconnected(self._closed.code, self._closed.reason)
                if self._said:
                    self._take(self._said.popleft())
                elif (left_s := deadline - monotonic()) > 0:
                    self._changed.wait(left_s)
                else:
                    unread = list(self._events)
                    kept = f"; {counted(len(unread), 'events')} unread: {unread}" if unread else ""
                    raise AssertionError(f"{wanted} did not arrive in {timeout_s:g} s{kept}")
        return found

    def _take(self, said: messages.Reply | messages.Push | Disconnected) -> None:
        """Keeps what the server said, for the thread that waits for it."""
        if isinstance(said, messages.Push):
            self._events.append(event_of(said))
        elif isinstance(said, Disconnected):
            self._closed = said
        elif said.id in self._asked:  # else it came too late
            self._replies[said.id] = said
        self._changed.notify_all()

    def _queue(self, said: messages.Reply | messages.Push | Disconnected) -> None:
        with self._changed:
            self._said.append(said)
            self._changed.notify_all()

    def _send(self, command: messages.Command) -> None:
        if self._socket is None:
            raise Disconnected(_NORMAL, "the block of endpoint_client has ended")
        self._socket.send_text(command_text(command))

    def _read(self, socket: _Socket) -> None:
        """Reads until the socket ends, in a thread."""
        try:
            while True:
                for said in replies_in(socket.receive_text()):
                    if said is None:
                        self._send(messages.Command(0, messages.Pong()))
                    else:
                        self._queue(said)
        except WebSocketDisconnect as end:
            self._queue(Disconnected(end.code, end.reason))
        except Exception as error:  # the app failed, or the test is over
            self._queue(Disconnected(_ABNORMAL, f"the socket ended ({error!r})"))


@contextmanager
def endpoint_client(
    client: TestClient,
    path: str,
    *,
    user: Any = None,
    token: str | None = None,
    data: Any = None,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] | None = None,
    timeout_s: float = 5.0,
) -> Iterator[EndpointClient]:
    """Connects a client to an endpoint, until the end of the block.

        with TestClient(app) as client, endpoint_client(client, "/live", user=Claims({"sub": "ann"})) as ann:
            ann.subscribe("ticket:1")
            closed = ann.rpc("ticket.close", Close(id=1), returns=Closed)
            assert ann.receive_from("ticket:1", Closed) == closed

    It speaks the protocol of the SDKs, in JSON, and answers pings. The app's ``dependency_overrides`` apply, and so do
    the cookies and headers of the test client. Several clients may be connected at the same time.

    Args:
        client: Starlette's or FastAPI's test client, inside its ``with`` block.
        path: The path of the endpoint, with the query: ``"/live?name=ann"``.
        user: The user: what the ``auth=`` dependency would return for this client. The dependency is then replaced for
            this client alone, so no token is needed, and several clients can be several users.
        token: The token that an SDK gets from ``getToken``, for ``auth=``.
        data: A message for the function under ``@live.connect``.
        headers: More headers of the handshake.
        subprotocols: The WebSocket subprotocols that the client offers.
        timeout_s: Seconds that a call waits at most.

    Raises:
        RequestRefused: The endpoint does not let the client connect, and answered with an error.
        Disconnected: The endpoint does not let the client connect, and closed the connection; or the path has no
            endpoint.
        InvalidArgument: ``subprotocols`` selects Protobuf, or ``user`` is given, but there is no endpoint with an
            ``auth=`` dependency at the path.
    """
    if "centrifuge-protobuf" in (subprotocols or ()):
        raise InvalidArgument("subprotocols", "this client speaks JSON", "any but 'centrifuge-protobuf'")
    offered = None if subprotocols is None else list(subprotocols)
    session = client.websocket_connect(path, offered, headers=dict(headers or {}))
    made = EndpointClient(session, timeout_s)
    reader = Thread(target=made._read, args=[session], name=f"client of {path}", daemon=True)
    with ExitStack() as afterwards, ExitStack() as stack:
        identified = afterwards.enter_context(ExitStack())
        if user is not None:
            identified.enter_context(identified_as(client, path, user))
        try:
            stack.enter_context(session)
        except WebSocketDisconnect as end:
            if not hasattr(end, "code"):  # an HTTP response
                raise
            raise Disconnected(end.code, end.reason or f"the handshake; is there an endpoint at {path!r}?") from None
        reader.start()
        afterwards.callback(reader.join, _JOIN_S)  # the session's end ends it, except in Starlette before 0.45
        try:
            made._connect(token, data)
            identified.close()
            yield made
        finally:
            made._socket = None


def _typed(value: Any, returns: Any, what: str) -> Any:
    """Returns a value of JSON as a type."""
    if returns is Any:
        return value
    try:
        return TypeAdapter(returns).validate_json(dumps(value))
    except ValidationError as error:
        problems = MessageInvalid(error.errors(include_url=False, include_context=False, include_input=False))
        name = getattr(returns, "__name__", "") if isinstance(returns, type) else ""
        raise AssertionError(f"{what} is {shown(value)}, not a {name or shown(returns)}: {problems}") from None


def _payload(data: Any) -> Payload | None:
    return None if data is None else Payload(Kind.JSON, dumps(data))
