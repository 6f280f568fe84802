"""A model that is called like another of the app that uses everything."""

from __future__ import annotations

from pydantic import BaseModel


class Item(BaseModel):
    """The other item."""

    other: str
