"""The Lua scripts: each is atomic at the server, and known there by its SHA-1."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final, Literal


class Script:
    """A script, as text and by the name that the server gives it.

    Args:
        name: That of its file.
        flags: What Redis may expect of it. ``allow-oom``: it takes little memory, and runs when none is left.
            ``no-writes``: it only reads.
    """

    def __init__(self, name: str, flags: Literal["", "allow-oom", "no-writes"] = "allow-oom") -> None:
        folder = files(__package__)
        head = f"#!lua flags={flags}\n" if flags else "#!lua\n"
        self.text: Final = head + "".join((folder / f"{each}.lua").read_text() for each in ("common", name))
        self.sha: Final = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


PUBLISH: Final = Script("publish", "")
LINE: Final = Script("line")
HEAD: Final = Script("head")
READ: Final = Script("read", "no-writes")
RENUMBER: Final = Script("renumber")
ENTER: Final = Script("enter", "")
LINGER: Final = Script("linger")
EXIT: Final = Script("exit")
LEASE: Final = Script("lease")
CLAIM: Final = Script("claim")
CLEAR: Final = Script("clear")
INSTRUCT: Final = Script("instruct")
CONNECTED: Final = Script("connected", "no-writes")
MISSING: Final = Script("missing", "no-writes")

ALL: Final = (
    PUBLISH,
    LINE,
    HEAD,
    READ,
    RENUMBER,
    ENTER,
    LINGER,
    EXIT,
    LEASE,
    CLAIM,
    CLEAR,
    INSTRUCT,
    CONNECTED,
    MISSING,
)
