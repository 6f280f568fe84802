"""The Lua scripts: each is atomic at the server, and known there by its SHA-1."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final


class Script:
    """A script, as text and by the name that the server gives it.

    Args:
        name: That of its file.
        grows: Whether it is for Redis to refuse when it has no memory left.
    """

    def __init__(self, name: str, *, grows: bool = False) -> None:
        folder = files(__package__)
        flags = "#!lua\n" if grows else "#!lua flags=allow-oom\n"
        self.text: Final = flags + "".join((folder / f"{each}.lua").read_text() for each in ("common", name))
        self.sha: Final = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


PUBLISH: Final = Script("publish", grows=True)
HEAD: Final = Script("head")
READ: Final = Script("read")
RENUMBER: Final = Script("renumber")
ENTER: Final = Script("enter", grows=True)
LINGER: Final = Script("linger")
EXIT: Final = Script("exit")
LEASE: Final = Script("lease")
CLAIM: Final = Script("claim")
CLEAR: Final = Script("clear")

ALL: Final = (PUBLISH, HEAD, READ, RENUMBER, ENTER, LINGER, EXIT, LEASE, CLAIM, CLEAR)
