"""Sign-in with a name, and sign-out in every tab.

There are no passwords. A name is only displayed, and several users may choose the same; the identity is a random id.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, StringConstraints
from pydantic_core import PydanticCustomError

from .live import manager
from .users import User, new_token


def _name(text: str) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or not name.isprintable():  # this also rejects characters that change the text direction
        raise PydanticCustomError("name", "a name is 1 to 32 printable characters")
    return name


Name = Annotated[str, StringConstraints(max_length=32), AfterValidator(_name)]


class SignIn(BaseModel):
    """The body of a request to sign in."""

    name: Name


class Session(BaseModel):
    """The response to a sign-in."""

    token: str


router: Final = APIRouter(prefix="/api/session")


@router.post("", status_code=201)
def sign_in(who: SignIn) -> Session:
    """Returns a token for any name."""
    return Session(token=new_token(who.name))


@router.delete("", status_code=204)
async def sign_out(user: User) -> None:
    """Closes all of the user's sockets. The pages forget the token, which stays valid until it expires."""
    await manager.disconnect_user(user.sub, reason="signed out")
