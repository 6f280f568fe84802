"""Serves the AsyncAPI document of an endpoint, at ``{path}/asyncapi.json``, and a page for it, at ``{path}/docs``.

The endpoint is described once, when the document is first asked for. Pydantic takes about 5 ms for each model, so this
happens in a thread. Only the addresses differ between requests: they are those that the client used.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..codec import dumps, loads
from ..errors import InvalidArgument, shown
from ..options import RoomOptions
from ..paths import path_within
from .asyncapi import VERSION, Declared, described
from .caller import Caller
from .dependencies import Security
from .docs_page import pages
from .functions import Function, authenticator
from .openapi import link
from .raw_sockets import NAME_IN_PATH, RawSocket
from .refusals import UNPROCESSABLE, MessageInvalid
from .schemas import Schema

Docs = bool | Callable[..., Any]

NAME: Final = "asyncapi.json"
_IN_PATHS: Final = "/:@!$&'()*+,;="  # RFC 3986, section 3.3
_HOST: Final = re.compile(
    r"(?:[\w.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?"
)  # RFC 3986, section 3.2.2, and IDNs
_HEADERS: Final = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
_TITLE: Final = "ASGI app"
_INFO: Final = (("contact", "contact"), ("license", "license_info"), ("termsOfService", "terms_of_service"))


class Site(NamedTuple):
    """The address at which an app is served.

    Attributes:
        protocol: "ws" or "wss".
        host: The host and the port.
        root: The path at which the app is mounted, without a slash at its end.
    """

    protocol: Literal["ws", "wss"]
    host: str
    root: str = ""

    @classmethod
    def of(cls, url: str) -> Site:
        """Reads the URL of a server: ``wss://example.org``.

        Raises:
            InvalidArgument: It is no such URL.
        """
        parts: SplitResult | None
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            parts, host = None, None
        if (
            parts is None
            or not host
            or parts.scheme not in ("ws", "wss")
            or parts.query
            or parts.fragment
            or not _HOST.fullmatch(parts.netloc)  # a name and a password, too
            or re.search(r"[\s{}]", parts.path)
        ):
            raise InvalidArgument("server", f"got {shown(url)}", "the URL of the app, such as 'wss://example.org'")
        return cls("wss" if parts.scheme == "wss" else "ws", parts.netloc, parts.path.rstrip("/"))

    @property
    def url(self) -> str:
        """The URL of the app over HTTP."""
        return f"http{self.protocol[2:]}://{self.host}{self.root}/"


class Engine(Protocol):
    """The part of a manager's engine that the documentation uses."""

    app: Starlette | None
    raw_sockets: dict[str, RawSocket]
    documentation: list[Documentation]

    def options_of(self, channel: str) -> RoomOptions:
        """Returns the options of a room."""


class Documentation:
    """The documentation of one endpoint.

    Args:
        path: The path of the endpoint.
        path_params: The parameters in it.
        docs: Whether the documentation is served, or the dependency that guards it.
        engine: Gives the engine of the manager.
        declared: Gives the functions of the endpoint. Later ones are refused.
        authenticate: Runs the ``auth=`` dependency of the endpoint.

    Attributes:
        path: The path of the endpoint.
        is_public: Whether everybody may read it.

    Raises:
        InvalidArgument: ``docs`` is neither a bool nor a dependency.
    """

    def __init__(
        self,
        path: str,
        path_params: frozenset[str],
        docs: Docs,
        engine: Callable[[], Engine],
        declared: Callable[[], Declared],
        authenticate: Function[Any] | None,
    ) -> None:
        self.path: str = path
        self.is_public: bool = docs is True
        self._is_served = docs is not False
        self._guard = None if isinstance(docs, bool) else authenticator(docs, path_params, argument="docs")
        self._engine = engine
        self._declared = declared
        self._security: Mapping[str, Security] = {} if authenticate is None else authenticate.security
        self._turn = asyncio.Lock()
        self._lock = threading.Lock()
        self._described: tuple[tuple[RawSocket, ...], Schema] | None = None

    def mount(self, app: Starlette) -> None:
        """Adds it to an app, unless the app does not serve it."""
        if self._is_served:
            app.router.routes += self._routes()
            self.link(app)

    def link(self, app: Starlette) -> None:
        """Links it from the app's OpenAPI document, if everybody may read it, and its address has no parameters."""
        if self.is_public and "{" not in self.path:
            link(app, f"{self.path.rstrip('/')}/{NAME}")

    def _routes(self) -> list[Route]:
        at = self.path.rstrip("/")
        return [
            Route(f"{at}/{name}", self._guarded(answer), name=f"{self.path} {name}", include_in_schema=False)
            for name, answer in {NAME: self._serve, **pages()}.items()
        ]

    def document(self, site: Site, pathname: str | None = None) -> Schema:
        """Returns the AsyncAPI document.

        Args:
            site: Where the app is served.
            pathname: The path of the endpoint, with its parameters filled in. By default they are variables.

        Raises:
            InvalidArgument: The type of a message has no JSON schema. Names the function.
        """
        engine = self._engine()
        parts = self._parts(engine)
        components = dict(parts["components"])
        if self._security:
            components["securitySchemes"] = {name: _scheme(each, site) for name, each in self._security.items()}
        return {
            "asyncapi": VERSION,
            "info": _info(engine.app),
            "defaultContentType": "application/json",
            "servers": self._addresses(
                site, pathname, with_raw=any(each.about.is_included for each in self._sockets(engine))
            ),
            **parts,
            "components": components,
        }

    def _guarded(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        guard = self._guard
        if guard is None:
            return answer

        async def serve(request: Request) -> Response:
            await _admit(guard, request)
            return await answer(request)

        return serve

    async def _serve(self, request: Request) -> Response:
        root: str = request.scope.get("root_path", "").rstrip("/")
        site = Site("wss" if request.url.scheme == "https" else "ws", request.url.netloc, root)
        path = path_within(request.scope["path"], root).removesuffix(NAME)
        pathname = quote(root + (path if self.path.endswith("/") else path.rstrip("/")), safe=_IN_PATHS)
        if self._described is None:
            async with self._turn:  # those who wait take no threads
                await run_in_threadpool(self._parts, self._engine())
        body = await run_in_threadpool(lambda: dumps(self.document(site, pathname)))
        return Response(body, headers=_HEADERS, media_type="application/json")

    def _parts(self, engine: Engine) -> Schema:
        sockets = self._sockets(engine)
        with self._lock:
            if self._described is None or self._described[0] != sockets:
                server, raw_server = self._servers()
                parts = described(
                    self._declared(),
                    server=server,
                    raw_server=raw_server,
                    sockets=sockets,
                    options_of=engine.options_of,
                )
                self._described = sockets, parts
            return self._described[1]

    def _sockets(self, engine: Engine) -> tuple[RawSocket, ...]:
        """The raw sockets in the document.

        A public document shows nothing that may be meant for the readers of another one only.
        """
        shows_all = not self.is_public or all(each.is_public for each in engine.documentation)
        return tuple(
            each
            for each in engine.raw_sockets.values()
            if each.endpoint == self.path or (each.endpoint is None and shows_all)
        )

    def _servers(self) -> tuple[str, str]:
        """The keys of the servers of the endpoint, and of raw sockets."""
        server = re.sub(r"[^A-Za-z0-9_]+", "_", NAME_IN_PATH.sub(r"\1", self.path)).strip("_") or "root"
        return server, "raw" if server != "raw" else "raw_sockets"

    def _addresses(self, site: Site, pathname: str | None, *, with_raw: bool) -> Schema:
        key, raw = self._servers()
        server: Schema = {"host": site.host, "protocol": site.protocol, "pathname": pathname}
        if pathname is None:
            server["pathname"] = site.root + NAME_IN_PATH.sub(r"{\1}", self.path)
            variables: Schema = {found[1]: {} for found in NAME_IN_PATH.finditer(self.path)}
            if variables:
                server["variables"] = variables
        server["description"] = "The Centrifugo client protocol, in JSON or Protobuf."
        if self._security:
            server["security"] = [{"$ref": f"#/components/securitySchemes/{name}"} for name in self._security]
        server["x-hubbub"] = {"kind": "endpoint", "path": self.path}
        servers = {key: server}
        if with_raw:
            servers[raw] = {
                "host": site.host,
                "protocol": site.protocol,
                "pathname": site.root or "/",
                "description": "WebSockets without a protocol of their own.",
                "x-hubbub": {"kind": "raw"},
            }
        return servers


async def _admit(guard: Function[Any], request: Request) -> None:
    """Runs the dependency that guards the documentation. Its HTTPException is the answer."""
    try:
        await guard(Caller(request.scope, app=request.scope.get("app")))
    except MessageInvalid as error:
        raise HTTPException(UNPROCESSABLE, str(error)) from None
    except WebSocketException as error:
        raise HTTPException(403, error.reason) from None


def _info(app: object) -> Schema:
    """The information that FastAPI has about an app. OpenAPI has a summary of it, and AsyncAPI has not.

    Raises:
        InvalidArgument: JSON can't represent it.
    """
    texts = [text for name in ("summary", "description") if (text := getattr(app, name, None))]
    info: Schema = {"title": getattr(app, "title", _TITLE), "version": getattr(app, "version", "0.1.0")}
    if texts:
        info["description"] = "\n\n".join(texts)
    for key, name in _INFO:
        if value := getattr(app, name, None):
            info[key] = value
    if "license" in info:
        info["license"] = {key: value for key, value in info["license"].items() if key != "identifier"}
    if tags := getattr(app, "openapi_tags", None):
        info["tags"] = tags
    try:
        encoded: Schema = loads(dumps(info))
    except InvalidArgument as error:
        where = "the title, description, contact, license or tags of the app"
        raise InvalidArgument(where, error.problem, error.accepted) from error
    return encoded


def _scheme(security: Security, site: Site) -> Schema:
    """Translates a security scheme of OpenAPI."""
    scheme = {key: value for key, value in security.scheme.items() if key not in ("type", "flows")}
    kind = security.scheme["type"]
    if kind == "apiKey":
        return {"type": "httpApiKey", **scheme}
    result: Schema = {"type": kind, **scheme}
    if kind == "openIdConnect":
        result["openIdConnectUrl"] = urljoin(site.url, scheme["openIdConnectUrl"])
    if kind == "oauth2":
        result["flows"] = {name: _flow(flow, site) for name, flow in security.scheme["flows"].items()}
    if kind in ("oauth2", "openIdConnect") and security.scopes:
        result["scopes"] = list(security.scopes)
    return result


def _flow(flow: Mapping[str, Any], site: Site) -> Schema:
    urls = {key: urljoin(site.url, value) for key, value in flow.items() if key.endswith("Url")}
    return {**urls, "availableScopes": flow.get("scopes") or {}}


def written(document: Schema) -> str:
    """Writes a document as a file."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
