"""The keys of the HTTP API. They are compared in constant time, and shown nowhere."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

from ..errors import InvalidArgument

MIN_LENGTH: Final = 16
_ACCEPTED: Final = (
    f"a str of {MIN_LENGTH} or more printable ASCII characters that is kept secret, such as that of "
    "`secrets.token_urlsafe(32)`, or a list of them"
)


class Keys:
    """The keys that are accepted.

    Args:
        keys: A key, or several while clients change to another one.

    Raises:
        InvalidArgument: There is no key, or one of them is weak. The message does not show it.
    """

    def __init__(self, keys: str | Sequence[str]) -> None:
        several = [keys] if isinstance(keys, str) else keys
        if not isinstance(several, (list, tuple)) or not several:
            raise InvalidArgument("key", "there is no key", _ACCEPTED)
        self._keys = [
            _checked(each, f"key[{place}]" if several is keys else "key") for place, each in enumerate(several)
        ]

    def accepts(self, given: str | None) -> bool:
        """Returns whether a text is one of the keys. Takes as long for any text of the same length."""
        if given is None:
            return False
        data = given.encode(errors="replace")
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(key, data)
        return found


def _checked(key: object, argument: str) -> bytes:
    if not isinstance(key, str):
        raise InvalidArgument(argument, f"it is a {type(key).__name__}", _ACCEPTED)
    if len(key) < MIN_LENGTH:
        raise InvalidArgument(argument, f"it has {len(key)} characters, which can be guessed", _ACCEPTED)
    if len(set(key)) < 6:
        raise InvalidArgument(argument, "it repeats a few characters, which can be guessed", _ACCEPTED)
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise InvalidArgument(argument, "it has characters that no header can carry", _ACCEPTED)
    return key.encode()
