"""The desk's server: the routes, the endpoint, and the page that Vite has built."""

from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints

from . import signin
from .live import manager
from .notices import notify, ticket_closed
from .signin import Agent, User
from .store import Ticket, TicketId, Tickets

app = FastAPI()
manager.install(app)
app.include_router(signin.router)


@app.exception_handler(RequestValidationError)
def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answers with a sentence, without the input: half of an emoji cannot be sent back."""
    return JSONResponse({"detail": error.errors()[0]["msg"]}, 422)


class NewTicket(BaseModel):
    subject: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


@app.get("/api/tickets")
def tickets(user: User, tickets: Tickets) -> list[Ticket]:
    return tickets.tickets(None if user["role"] == "agent" else user.sub)


@app.post("/api/tickets", status_code=201)
def open_ticket(new: NewTicket, user: User, tickets: Tickets) -> Ticket:
    ticket = tickets.open(user.sub, new.subject, new.text)
    notify(manager.from_thread, ticket, user.sub, f"{user['name']} opened “{ticket.subject}”")
    return ticket


@app.post("/api/tickets/{ticket_id}/close")
def close_ticket(ticket_id: TicketId, user: Agent, tickets: Tickets) -> Ticket:
    was_open = tickets.close(ticket_id)
    ticket = tickets.ticket(ticket_id)
    if ticket is None:
        raise HTTPException(404, "there is no such ticket")
    if was_open:
        ticket_closed(manager.from_thread, ticket, user.sub, f"{user['name']} closed “{ticket.subject}”")
    return ticket


@app.delete("/api/session")
async def sign_out(user: User, response: Response) -> None:
    response.delete_cookie("session")
    await manager.disconnect_user(user.sub, reason="signed out")  # in every tab


page = Path(__file__).parent / "page" / "dist"
app.mount("/", StaticFiles(directory=page, html=True, check_dir=False))
