"""The Lua scripts. The server runs each script atomically, and identifies it by its SHA-1."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import Final, Literal


class Script:
    """A Lua script: its text, and the SHA-1 that identifies it at the server.

    Args:
        name: The name of its file, without ``.lua``.
        flags: What the script promises to Redis. ``allow-oom``: it needs little memory, so it runs even if the server
            is out of memory. ``no-writes``: it only reads.
    """

    def __init__(self, name: str, flags: Literal["", "allow-oom", "no-writes"] = "allow-oom") -> None:
        folder = files(__package__)
        shebang = f"#!lua flags={flags}\n" if flags else "#!lua\n"
        self.text: Final = shebang + "".join((folder / f"{each}.lua").read_text() for each in ("common", name))
        self.sha: Final = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


PUBLISH: Final = Script("publish", "")
ONCE: Final = Script("once", "")
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
    ONCE,
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
