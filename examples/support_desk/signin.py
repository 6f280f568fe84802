"""Signing in: a cookie that no script can read, the same for the routes and for the endpoint."""

import os
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import jwt
from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel, StringConstraints

from hubbub.auth import Claims, JWTAuth

from .store import Ticket

SECRET = os.environ["JWT_KEY"]
SHIFT = timedelta(hours=12)
AGENTS = {"dana", "noor"}  # in a real app, a column of the table of users

current_user = JWTAuth(SECRET, algorithms=["HS256"], cookie="session")
User = Annotated[Claims, Depends(current_user)]
Role = Literal["agent", "customer"]


def agent(user: User) -> Claims:
    if user["role"] != "agent":
        raise HTTPException(403, "for agents only")
    return user


Agent = Annotated[Claims, Depends(agent)]


def may_read(user: Claims, ticket: Ticket | None) -> bool:
    return ticket is not None and (user["role"] == "agent" or user.sub == ticket.customer)


class SignIn(BaseModel):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=32, pattern=r"^[\w -]+$")]


class Me(BaseModel):
    id: str
    name: str
    role: Role


router = APIRouter(prefix="/api/session")


@router.post("")
def sign_in(who: SignIn, response: Response) -> Me:  # a real one checks a password, or uses an identity provider
    user_id = who.name.lower()
    me = Me(id=user_id, name=who.name, role="agent" if user_id in AGENTS else "customer")
    response.set_cookie("session", token(me), max_age=int(SHIFT.total_seconds()), httponly=True, samesite="strict")
    return me


@router.get("")
def me(user: User) -> Me:
    return Me(id=user.sub, name=user["name"], role=user["role"])


def token(me: Me) -> str:
    claims = {"sub": me.id, "name": me.name, "role": me.role, "exp": datetime.now(UTC) + SHIFT}
    return jwt.encode(claims, SECRET, "HS256")
