"""The signed-in user: a JWT, and the dependency that identifies the user in every other module.

The key must outlive the process, or a restart would sign every user out. It is ``HUBBUB_DEMO_KEY``, or is stored in a
file in the user's state directory (``$XDG_STATE_HOME``, by default ``~/.local/state``) that only the user can read.
"""

from __future__ import annotations

import logging
import os
import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Final

import jwt
from fastapi import Depends

from ..auth import Claims, JWTAuth
from ..errors import shown

logger: Final = logging.getLogger("hubbub.demo")

_VALID_FOR = timedelta(days=7)


@cache
def signing_key() -> str:
    """Returns the key that signs tokens."""
    key = os.environ.get("HUBBUB_DEMO_KEY")
    if key:
        return key
    try:
        return kept_key(Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hubbub")
    except (OSError, RuntimeError) as error:  # RuntimeError: the home directory is unknown
        logger.warning("the demo's key can't be stored (%s): a restart will sign every user out", shown(error))
        return secrets.token_urlsafe(32)


def kept_key(directory: Path) -> str:
    """Returns the key in a directory, and creates it if there is none."""
    path = directory / "demo.key"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Written to another file and linked into place, so that two processes that start at once read the same key.
        fresh = path.with_name(f"demo.key.{secrets.token_hex(4)}")
        with open(fresh, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(32))
        try:
            fresh.rename(path) if os.name == "nt" else os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)
    return path.read_text().strip()


# A function, so that importing this module creates no file.
current_user: Final = JWTAuth(lambda header: signing_key(), algorithms=["HS256"], required=["exp", "sub", "name"])
User = Annotated[Claims, Depends(current_user)]
"""The signed-in user, in routes, endpoints and WebSockets alike: ``user.sub`` and ``user["name"]``."""


def new_token(name: str) -> str:
    """Returns a token for a new user, whose id is random."""
    claims = {"sub": secrets.token_urlsafe(9), "name": name, "exp": datetime.now(UTC) + _VALID_FOR}
    return jwt.encode(claims, signing_key(), algorithm="HS256")
