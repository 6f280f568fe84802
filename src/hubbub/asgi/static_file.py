"""A file of the package, as browsers load it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

_PACKAGE: Final = files(__name__.partition(".")[0])


class StaticFile:
    """A file of the package, read once.

    Browsers may cache it, but revalidate it each time (``ETag``, ``Cache-Control: no-cache``), so that they have the
    new one after an upgrade of the server.

    Args:
        path: Its path in the package.
        kind: Its media type.
    """

    def __init__(self, path: str, kind: str) -> None:
        self._content = _PACKAGE.joinpath(path).read_bytes()
        self._etag = f'"{sha256(self._content).hexdigest()[:32]}"'
        self._headers = {
            "Cache-Control": "no-cache",
            "Content-Type": f"{kind}; charset=utf-8",
            "ETag": self._etag,
            "X-Content-Type-Options": "nosniff",
        }

    def answer(self, request: Request, headers: Mapping[str, str] | None = None) -> Response:
        """Answers a request with the file, or with 304 if the browser has it.

        Args:
            request: The request.
            headers: More headers of the answer.
        """
        headers = {**self._headers, **(headers or {})}
        held = request.headers.get("if-none-match", "")
        if self._etag in {tag.strip().removeprefix("W/") for tag in held.split(",")}:
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers)
