"""The typed messages of the scenario `endpoint`, the same for every server."""

from typing import Annotated

from pydantic import BaseModel, StringConstraints


class Say(BaseModel):
    text: Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Said(BaseModel):
    user_id: str
    text: str


def said(message: Say) -> Said:
    """Returns the answer to a message."""
    return Said(user_id="ann", text=message.text)
