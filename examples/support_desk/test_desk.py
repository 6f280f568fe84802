"""Tests of the desk, without sockets and servers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hubbub.testing import EndpointClient, Publication, RequestRefused, endpoint_client

from . import smallest
from .app import app
from .live import manager
from .signin import AGENTS, Me, token
from .store import Message, Store, Ticket, open_store
from .worker import close_stale


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("DATABASE", str(tmp_path_factory.mktemp("desk") / "desk.db"))
    with TestClient(app) as client:
        yield client


def token_of(name: str) -> str:
    return token(Me(id=name, name=name.title(), role="agent" if name in AGENTS else "customer"))


@contextmanager
def connected(desk: TestClient, name: str) -> Iterator[EndpointClient]:
    with endpoint_client(desk, "/live", token=token_of(name)) as client:
        yield client


def ask(desk: TestClient, name: str, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    headers = {"Authorization": f"Bearer {token_of(name)}"}
    response = desk.request(method, f"/api/{path}", json=body, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


def open_ticket(desk: TestClient, name: str = "ann") -> int:
    ticket = ask(desk, name, "POST", "tickets", {"subject": "Help", "text": "My parcel is late"}, status=201)
    return int(ticket["id"])


def told(client: EndpointClient) -> Publication:
    """The next message, without the joins and leaves before it."""
    while not isinstance(event := client.receive(), Publication):
        pass
    return event


def test_a_message_reaches_everyone_at_the_ticket(desk: TestClient) -> None:
    number = open_ticket(desk)
    with connected(desk, "ann") as ann, connected(desk, "dana") as dana:
        thread = dana.subscribe(f"ticket:{number}").data
        assert [message["text"] for message in thread["messages"]] == ["My parcel is late"]
        ann.subscribe(f"ticket:{number}")
        reply = ann.rpc("say", {"ticket_id": number, "text": " Any news? "})
        assert (reply["author"], reply["text"]) == ("ann", "Any news?")
        assert told(dana).data == reply


def test_a_ticket_is_for_its_customer_and_for_agents(desk: TestClient) -> None:
    number = open_ticket(desk)
    with connected(desk, "bob") as bob:
        with pytest.raises(RequestRefused) as refused:
            bob.subscribe(f"ticket:{number}")
        assert refused.value.code == 103
        with pytest.raises(RequestRefused, match="there is no such ticket") as refused:
            bob.rpc("say", {"ticket_id": number, "text": "Hello"})
        assert refused.value.code == 404
    assert ask(desk, "bob", "GET", "tickets") == []
    assert [ticket["id"] for ticket in ask(desk, "noor", "GET", "tickets")] == [number]


def test_a_message_has_a_text(desk: TestClient) -> None:
    number = open_ticket(desk)
    with (
        connected(desk, "ann") as ann,
        pytest.raises(RequestRefused, match=r"text: .* at least 1 character") as refused,
    ):
        ann.rpc("say", {"ticket_id": number, "text": " "})
    assert refused.value.code == 422


@pytest.mark.parametrize("number", [0, 2**63, 10**30])
def test_a_number_that_no_ticket_can_have_is_refused(desk: TestClient, number: int) -> None:
    ask(desk, "dana", "POST", f"tickets/{number}/close", status=422)
    with connected(desk, "dana") as dana:
        with pytest.raises(RequestRefused) as refused:
            dana.subscribe(f"ticket:{number}")
        assert refused.value.code in (102, 103)
        with pytest.raises(RequestRefused, match="ticket_id") as refused:
            dana.rpc("say", {"ticket_id": number, "text": "Hello"})
        assert refused.value.code == 422


def test_text_that_cannot_be_encoded_is_refused(desk: TestClient) -> None:
    half_an_emoji = {"Content-Type": "application/json", "Authorization": f"Bearer {token_of('ann')}"}
    for path, body in (("session", r'{"name": "\ud800"}'), ("tickets", r'{"subject": "\ud800", "text": "Hello"}')):
        refused = desk.post(f"/api/{path}", content=body, headers=half_an_emoji)
        assert refused.status_code == 422
        assert "valid" in refused.json()["detail"]


def test_agents_are_told_of_a_new_ticket_and_other_customers_are_not(desk: TestClient) -> None:
    with connected(desk, "dana") as dana, connected(desk, "bob") as bob:
        number = open_ticket(desk)
        notice = told(dana)
        assert (notice.room, notice.data["text"], notice.data["ticket"]["id"]) == (
            "agents",
            "Ann opened “Help”",
            number,
        )
        with pytest.raises(RequestRefused):
            bob.subscribe("agents")
        assert bob.unread() == []


def test_the_customer_is_told_that_the_ticket_is_closed(desk: TestClient) -> None:
    number = open_ticket(desk)
    with connected(desk, "ann") as ann:
        ann.subscribe(f"ticket:{number}")
        ask(desk, "ann", "POST", f"tickets/{number}/close", status=403)
        ask(desk, "dana", "POST", f"tickets/{number}/close")
        changed, notice = told(ann), told(ann)
        assert (changed.room, changed.data["is_open"]) == (f"ticket:{number}", False)
        assert (notice.room, notice.data["text"]) == ("$user", "Dana closed “Help”")
        with pytest.raises(RequestRefused, match="the ticket is closed") as refused:
            ann.rpc("say", {"ticket_id": number, "text": "Wait"})
        assert refused.value.code == 409


def test_a_client_that_was_away_receives_exactly_what_it_missed(desk: TestClient) -> None:
    number = open_ticket(desk)
    room = f"ticket:{number}"
    with connected(desk, "ann") as ann, connected(desk, "dana") as dana:
        position = ann.subscribe(room).position
        ann.unsubscribe(room)
        for text in ("One", "Two"):
            dana.rpc("say", {"ticket_id": number, "text": text})
        again = ann.subscribe(room, since=position)
        assert again.recovered
        assert [missed.data["text"] for missed in again.publications] == ["One", "Two"]


def test_a_message_that_is_sent_while_a_client_subscribes_is_not_missed(
    desk: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = open_ticket(desk)
    read = Store.messages

    def read_too_early(store: Store, ticket_id: int) -> list[Message]:
        messages = read(store, ticket_id)
        manager.from_thread.broadcast(store.add(ticket_id, "dana", "Just now"), room=f"ticket:{ticket_id}")
        return messages

    monkeypatch.setattr(Store, "messages", read_too_early)
    with connected(desk, "ann") as ann:
        subscribed = ann.subscribe(f"ticket:{number}")
    assert [message["text"] for message in subscribed.data["messages"]] == ["My parcel is late"]
    assert [message.data["text"] for message in subscribed.publications] == ["Just now"]


def test_people_at_a_ticket_see_each_other(desk: TestClient) -> None:
    room = f"ticket:{open_ticket(desk)}"
    with connected(desk, "ann") as ann, connected(desk, "dana") as dana:
        ann.subscribe(room)
        dana.subscribe(room)
        present = {info.conn_info["name"]: info.chan_info["role"] for info in ann.presence(room).values()}
        assert present == {"Ann": "customer", "Dana": "agent"}


def test_stale_tickets_are_closed_and_their_customers_are_told(desk: TestClient) -> None:
    number = open_ticket(desk)
    with connected(desk, "ann") as ann, contextmanager(open_store)() as tickets:
        assert close_stale(tickets, manager.from_thread, before=0) == 0
        assert close_stale(tickets, manager.from_thread, before=time.time() + 1) == 1
        notice = told(ann).data
        assert (notice["by"], notice["ticket"]["is_open"]) == (None, False)
        assert close_stale(tickets, manager.from_thread, before=time.time() + 1) == 0
    assert [ticket["is_open"] for ticket in ask(desk, "ann", "GET", "tickets") if ticket["id"] == number] == [False]


def test_a_ticket_that_was_just_written_to_is_not_closed_as_stale(
    desk: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = open_ticket(desk)
    now = time.time()
    read = Store.stale

    def read_too_early(store: Store, before: float) -> list[Ticket]:
        stale = read(store, before)
        monkeypatch.setattr(time, "time", lambda: now + 60)
        assert store.add(number, "ann", "Still waiting")
        return stale

    monkeypatch.setattr(Store, "stale", read_too_early)
    with connected(desk, "ann") as ann, contextmanager(open_store)() as tickets:
        assert close_stale(tickets, manager.from_thread, before=now + 30) == 0
        ann.rpc("say", {"ticket_id": number, "text": "Thanks"})
        assert told(ann).data["text"] == "Ann wrote in “Help”"


def test_nothing_can_be_said_while_a_ticket_is_being_closed(desk: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    number = open_ticket(desk)
    read = Store.ticket

    def read_too_early(store: Store, ticket_id: int) -> Ticket | None:
        ticket = read(store, ticket_id)
        store.close(ticket_id)
        return ticket

    monkeypatch.setattr(Store, "ticket", read_too_early)
    with connected(desk, "ann") as ann, contextmanager(open_store)() as tickets:
        with pytest.raises(RequestRefused, match="the ticket is closed") as refused:
            ann.rpc("say", {"ticket_id": number, "text": "Wait"})
        assert refused.value.code == 409
        assert [message.text for message in tickets.messages(number)] == ["My parcel is late"]


def test_a_user_can_have_any_name_of_a_process(desk: TestClient) -> None:
    number = open_ticket(desk, "worker")
    with connected(desk, "worker") as customer, contextmanager(open_store)() as tickets:
        assert close_stale(tickets, manager.from_thread, before=time.time() + 1) == 1
        notice = told(customer).data
    assert notice["ticket"]["id"] == number
    assert notice["by"] != "worker"  # otherwise the page would take it for the customer's own


def test_the_cookie_of_the_sign_in_opens_the_endpoint(desk: TestClient) -> None:
    assert desk.get("/api/session").status_code == 401
    me = desk.post("/api/session", json={"name": "Noor"}).json()
    assert me == {"id": "noor", "name": "Noor", "role": "agent"}
    assert desk.get("/api/session").json() == me
    with endpoint_client(desk, "/live") as noor:
        assert "agents" in noor.connected.rooms
    assert desk.post("/api/session", json={"name": "<b>"}).status_code == 422
    desk.delete("/api/session")
    assert desk.get("/api/session").status_code == 401


def test_the_smallest_desk_has_private_tickets_too() -> None:
    with TestClient(smallest.app) as client, endpoint_client(client, "/live?name=ann") as ann:
        ann.subscribe("ticket:1")
        assert ann.rpc("say", {"ticket_id": 1, "text": "Hello"}) == {"by": "ann", "text": "Hello"}
        assert ann.receive() == Publication("ticket:1", {"by": "ann", "text": "Hello"}, offset=1)
        with pytest.raises(RequestRefused, match="permission denied"):
            ann.subscribe("ticket:2")
        with pytest.raises(RequestRefused, match="open the ticket first"):
            ann.rpc("say", {"ticket_id": 2, "text": "Hello"})
