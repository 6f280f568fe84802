"""Notices of tickets: a route sends them, a function of the endpoint, and the worker process."""

from typing import Literal, Protocol

from pydantic import BaseModel

from .store import Ticket


class Notice(BaseModel):
    type: Literal["notice"] = "notice"
    text: str
    by: str | None  # None: the worker process, which is not a user
    ticket: Ticket


class Sends(Protocol):
    """The calls that `manager.from_thread` and a `Publisher` have in common."""

    def broadcast(self, message: BaseModel, *, room: str, exclude_users: str | None = None) -> object: ...
    def send_to_user(self, user_id: str, message: BaseModel) -> bool: ...


def notify(sends: Sends, ticket: Ticket, by: str | None, text: str) -> None:
    """Tells the customer, and all other agents."""
    notice = Notice(text=text, by=by, ticket=ticket)
    sends.send_to_user(ticket.customer, notice)
    sends.broadcast(notice, room="agents", exclude_users=ticket.customer)


def ticket_closed(sends: Sends, ticket: Ticket, by: str | None, text: str) -> None:
    """Tells everyone at the ticket, too."""
    sends.broadcast(ticket, room=f"ticket:{ticket.id}")
    notify(sends, ticket, by, text)
