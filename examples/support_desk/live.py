"""The real-time part: which rooms there are and for whom, what clients may ask, and what they receive."""

import os
from typing import Annotated

from fastapi import HTTPException
from pydantic import BaseModel, StringConstraints

from hubbub import ConnectionManager, Grant, History, RoomOptions, Welcome

from .notices import notify
from .signin import User, current_user, may_read
from .store import Message, Ticket, TicketId, Tickets

DAY = History(100, ttl_s=86_400)
manager = ConnectionManager(
    os.environ.get("BROKER", "memory://"),
    rooms={
        "ticket:{ticket_id}": RoomOptions(history=DAY, replay=20, announce=True, client_presence=True),
        "agents": RoomOptions(history=DAY),
    },
    users=RoomOptions(history=DAY),  # a notice that is sent while the line is down arrives afterwards
)
live = manager.endpoint("/live", auth=current_user)


@live.connect
def welcome(user: User) -> Welcome:
    return Welcome(info={"name": user["name"]}, rooms=["agents"] if user["role"] == "agent" else [])


@live.room("ticket:{ticket_id}", sends=Message | Ticket)
def look_at(ticket_id: TicketId, user: User, tickets: Tickets) -> Grant | bool:
    ticket = tickets.ticket(ticket_id)
    if not may_read(user, ticket):
        return False
    return Grant(data={"ticket": ticket, "messages": tickets.messages(ticket_id)}, info={"role": user["role"]})


class Say(BaseModel):
    ticket_id: TicketId
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


@live.on("say")
def say(said: Say, user: User, tickets: Tickets) -> Message:
    ticket = tickets.ticket(said.ticket_id)
    if ticket is None or not may_read(user, ticket):
        raise HTTPException(404, "there is no such ticket")
    message = tickets.add(ticket.id, user.sub, said.text)
    if message is None:
        raise HTTPException(409, "the ticket is closed")
    manager.from_thread.broadcast(message, room=f"ticket:{ticket.id}")
    notify(manager.from_thread, ticket, user.sub, f"{user['name']} wrote in “{ticket.subject}”")
    return message
