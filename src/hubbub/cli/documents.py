"""Commands that write the documentation of an endpoint to a file. The app is imported, and not served."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Router

from ..asgi.middleware import HubbubMiddleware
from ..endpoints.documentation import Documentation, Site, written
from ..endpoints.typescript import typescript
from ..errors import HubbubError, InvalidArgument
from .apps import NotAnApp, imported_app

_SERVER: Final = "ws://localhost:8000"


def add_asyncapi(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``hubbub asyncapi``."""
    add_document(parser, "document")
    parser.add_argument(
        "--server",
        type=_site,
        default=_SERVER,
        metavar="URL",
        help="address of the app in the document, such as wss://example.org (default: %(default)s)",
    )


def add_types(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``hubbub types``."""
    add_document(parser, "module")


def add_document(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the arguments of a command that writes a file about an endpoint.

    Args:
        parser: The parser of the command.
        what: Names the file in help texts.
    """
    parser.add_argument("app", help="the app as MODULE:NAME, such as app:app")
    parser.add_argument("--factory", action="store_true", help="the app argument is a function that creates the app")
    parser.add_argument("--endpoint", metavar="PATH", help="path of the endpoint, if the app has several")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"write the {what} to a file (default: standard output)"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail if the file of --out is not up to date"
    )


def write_asyncapi(args: argparse.Namespace) -> str | None:
    """Write the AsyncAPI document of an endpoint. The app is imported, and not served."""
    try:
        text = written(document(args, args.server))
    except (NotAnApp, HubbubError) as error:
        return str(error)
    return write(text, args)


def write_types(args: argparse.Namespace) -> str | None:
    """Write a TypeScript module with the types of an endpoint; declarations only, if the name of --out ends in .d.ts.

    The app is imported, and not served.
    """
    declarations = args.out is not None and args.out.name.endswith(".d.ts")
    try:
        text = typescript(document(args), declarations=declarations)
    except (NotAnApp, HubbubError) as error:
        return str(error)
    return write(text, args)


def document(args: argparse.Namespace, site: Site | None = None) -> dict[str, Any]:
    """Returns the document of the endpoint that the arguments name.

    Raises:
        NotAnApp: There is no such app, or no such endpoint.
        HubbubError: The endpoint can't be described.
    """
    app = imported_app(args.app, factory=args.factory)
    found = dict(_documentation(app() if args.factory else app))
    if not found:
        raise NotAnApp(f"{args.app!r} has no endpoint: manager.install(app), and live = manager.endpoint(...)")
    if args.endpoint is None and len(found) > 1:
        raise NotAnApp(f"{args.app!r} has several endpoints: add --endpoint with one of {', '.join(found)}")
    path = next(iter(found)) if args.endpoint is None else args.endpoint
    if path not in found:
        raise NotAnApp(f"{args.app!r} has no endpoint {path}; it has {', '.join(found)}")
    documentation, root = found[path]
    site = site or Site.of(_SERVER)
    return documentation.document(site._replace(root=site.root + root))


def write(text: str, args: argparse.Namespace) -> str | None:
    """Writes a text to the file of ``--out``, or checks that it is there. Returns the problem, if there is one.

    The text is UTF-8 whatever the locale. The file is replaced as a whole, so a failure leaves the old one.
    """
    out: Path | None = args.out
    data = text.encode()
    if out is None:
        if args.check:
            return "--check needs --out, the file to check"
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return None
    try:
        if not args.check:
            _replace(out, data)
        elif not out.exists() or out.read_bytes().replace(b"\r\n", b"\n") != data:  # Git may change the line ends
            return f"{out} is not up to date: run the same command without --check"
    except OSError as error:
        return f"can't {'read' if args.check else 'write'} {out}: {error.strerror or error}"
    return None


def _replace(path: Path, data: bytes) -> None:
    """Gives a file another content in one step. It stays the same behind a symbolic link, and keeps its mode."""
    if path.exists() and not path.is_file():  # such as /dev/stdout
        path.write_bytes(data)
        return
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(data)
        if path.exists():
            shutil.copymode(path, fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _documentation(app: Any) -> Iterator[tuple[str, tuple[Documentation, str]]]:
    """The endpoints of an app, and of the apps that are mounted in it, by path, each with the path of its app.

    The search passes through routers, and through middleware that keeps the wrapped app as ``app``.
    """
    seen: set[int] = set()
    ahead: list[tuple[Any, str]] = [(app, "")]
    while ahead:
        node, root = ahead.pop()
        if id(node) in seen:  # mounts can form a cycle
            continue
        seen.add(id(node))
        if isinstance(node, Starlette):
            middleware: Any
            for middleware in node.user_middleware:
                if middleware.cls is HubbubMiddleware:
                    for manager in middleware.kwargs["managers"]:
                        for each in manager._hubbub.documentation:
                            yield root + each.path, (each, root)
        inner = node.routes if isinstance(node, (Starlette, Router)) else [node]
        for each in inner:
            if (below := getattr(each, "app", None)) is not None:
                ahead.append((below, root + getattr(each, "path", "")))


def _site(url: str) -> Site:
    try:
        return Site.of(url)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(f"{error.problem}; accepted: {error.accepted}") from None
