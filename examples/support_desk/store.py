"""The tickets and their messages, in SQLite. It knows nothing of sockets."""

import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Literal

from fastapi import Depends
from pydantic import BaseModel, Field

TicketId = Annotated[int, Field(ge=1, le=2**63 - 1)]  # what SQLite can store
SCHEMA = """
CREATE TABLE IF NOT EXISTS tickets (id INTEGER PRIMARY KEY, customer TEXT, subject TEXT, is_open INTEGER DEFAULT 1);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, ticket_id INTEGER, author TEXT, text TEXT, at REAL);
CREATE INDEX IF NOT EXISTS messages_of_ticket ON messages (ticket_id);
"""
STALE = "is_open AND (SELECT max(at) FROM messages WHERE ticket_id = tickets.id) < ?"


class Ticket(BaseModel):
    type: Literal["ticket"] = "ticket"
    id: int
    customer: str
    subject: str
    is_open: bool


class Message(BaseModel):
    type: Literal["message"] = "message"
    id: int
    ticket_id: int
    author: str
    text: str
    at: float


class Store:
    """Every method has committed its changes when it returns."""

    def __init__(self, db: sqlite3.Connection) -> None:
        db.row_factory = sqlite3.Row
        db.executescript(SCHEMA)
        self._db = db

    def open(self, customer: str, subject: str, text: str) -> Ticket:
        with self._db:
            row = (customer, subject)
            ticket_id = self._db.execute("INSERT INTO tickets (customer, subject) VALUES (?, ?)", row).lastrowid
            assert ticket_id is not None
            self._insert(ticket_id, customer, text)
        return Ticket(id=ticket_id, customer=customer, subject=subject, is_open=True)

    def add(self, ticket_id: int, author: str, text: str) -> Message | None:
        """Adds a message to an open ticket. Returns None if the ticket is closed."""
        with self._db:
            return self._insert(ticket_id, author, text)

    def close(self, ticket_id: int, before: float = math.inf) -> bool:
        """Closes an open ticket that has no message after a time. Returns whether it did."""
        sql = f"UPDATE tickets SET is_open = 0 WHERE id = ? AND {STALE}"
        with self._db:
            return self._db.execute(sql, (ticket_id, before)).rowcount > 0

    def ticket(self, ticket_id: int) -> Ticket | None:
        return next(self._tickets("WHERE id = ?", ticket_id), None)

    def tickets(self, customer: str | None = None) -> list[Ticket]:
        """Returns the newest tickets, of one customer or of all."""
        return list(self._tickets("WHERE ? IN (customer, '') ORDER BY id DESC LIMIT 100", customer or ""))

    def stale(self, before: float) -> list[Ticket]:
        """Returns the open tickets with no message after a time."""
        return list(self._tickets(f"WHERE {STALE} ORDER BY id", before))

    def messages(self, ticket_id: int) -> list[Message]:
        """Returns the newest messages of a ticket, in order."""
        rows = self._db.execute("SELECT * FROM messages WHERE ticket_id = ? ORDER BY id DESC LIMIT 200", (ticket_id,))
        return [Message(**dict(row)) for row in rows][::-1]

    def _tickets(self, where: str, value: object) -> Iterator[Ticket]:
        return (Ticket(**dict(row)) for row in self._db.execute(f"SELECT * FROM tickets {where}", (value,)))

    def _insert(self, ticket_id: int, author: str, text: str) -> Message | None:
        values = "SELECT id, ?, ?, ? FROM tickets WHERE id = ? AND is_open"
        sql = f"INSERT INTO messages (ticket_id, author, text, at) {values} RETURNING *"
        row = self._db.execute(sql, (author, text, time.time(), ticket_id)).fetchone()
        return row and Message(**dict(row))


def open_store() -> Iterator[Store]:
    """A dependency: a route has the store while it answers, and an endpoint's function while it handles a message."""
    path = os.environ.get("DATABASE", "desk.db")
    with closing(sqlite3.connect(path, check_same_thread=False)) as db:  # several threads use it, one at a time
        yield Store(db)


Tickets = Annotated[Store, Depends(open_store)]
