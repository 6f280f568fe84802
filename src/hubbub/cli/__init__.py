"""The command line: ``hubbub run``, ``hubbub demo``, ``hubbub asyncapi`` and ``hubbub types``."""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from math import inf
from tempfile import TemporaryDirectory
from typing import Final

from ..__about__ import __version__
from ..brokers import broker_from
from ..errors import InvalidArgument
from ..server.serve import WORKER_HEALTHCHECK_S, Config, serve
from .apps import NotAnApp, imported_app
from .documents import add_asyncapi, add_types, write_asyncapi, write_types

_LEVELS = ("critical", "error", "warning", "info", "debug")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the ``hubbub`` command.

    Args:
        argv: The arguments; by default those of the process.

    Raises:
        SystemExit: 0 if a signal ended the server, 2 if an argument is wrong, another code if the server can't start or
            a file can't be written or is not up to date.
    """
    parser = argparse.ArgumentParser(prog="hubbub", description="The real-time layer for FastAPI.")
    parser.add_argument("--version", action="version", version=f"hubbub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    _add_run(commands.add_parser("run", help="serve an app", description=_run.__doc__))
    _add_demo(commands.add_parser("demo", help="serve the demo app", description=_demo.__doc__))
    add_asyncapi(
        commands.add_parser(
            "asyncapi", help="write an endpoint's AsyncAPI document", description=write_asyncapi.__doc__
        )
    )
    add_types(
        commands.add_parser("types", help="write TypeScript types of an endpoint", description=write_types.__doc__)
    )
    args = parser.parse_args(argv)
    problem = _COMMANDS[args.command](args)
    if problem:
        parser.exit(1, f"hubbub: {problem}\n")


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("app", help="the app as MODULE:NAME, such as app:app")
    run.add_argument("--factory", action="store_true", help="the app argument is a function that creates the app")
    _add_server(run)
    run.add_argument("--log-level", choices=_LEVELS, default="info", help="minimum log level (default: info)")
    run.add_argument(
        "--proxy-headers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="trust a proxy's X-Forwarded-For and X-Forwarded-Proto (default: yes)",
    )
    run.add_argument(
        "--forwarded-allow-ips",
        metavar="ADDRESSES",
        help="addresses or networks of the proxies to trust, separated by commas; * trusts every client "
        "(default: FORWARDED_ALLOW_IPS, or this machine)",
    )
    run.add_argument(
        "--timeout-worker-healthcheck",
        type=_whole_seconds,
        default=WORKER_HEALTHCHECK_S,
        metavar="SECONDS",
        help="time in which one of several workers has to answer, or is replaced (default: %(default)s)",
    )
    run.add_argument("--ssl-certfile", metavar="FILE", help="certificate for TLS")
    run.add_argument(
        "--ssl-keyfile", metavar="FILE", help="private key of the certificate, if it is in a separate file"
    )


def _add_demo(demo: argparse.ArgumentParser) -> None:
    _add_server(demo)
    demo.add_argument(
        "--broker",
        type=_broker,
        default=os.environ.get("HUBBUB_BROKER") or "memory://",
        metavar="URL",
        help="URL of the broker that connects the workers, such as redis://localhost (default: HUBBUB_BROKER, or memory://)",
    )


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=8000, help="port to listen on (default: %(default)s; 0 picks a free port)"
    )
    parser.add_argument("--workers", type=_workers, default=1, help="number of worker processes (default: %(default)s)")
    parser.add_argument(
        "--drain-s",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="time over which SIGTERM closes the open sockets (default: 5)",
    )


def _run(args: argparse.Namespace) -> str | None:
    """Serve an app. SIGTERM or Ctrl+C closes its sockets gradually; a second signal closes the rest at once."""
    problem = _cannot_listen(args.host, args.port)
    if problem:
        return problem
    try:
        imported_app(args.app, factory=args.factory)
    except NotAnApp as error:
        return str(error)
    problem = _no_certificate(args.ssl_certfile, args.ssl_keyfile)
    if problem:
        return problem
    config = Config(
        args.app,
        factory=args.factory,
        host=args.host,
        port=args.port,
        workers=args.workers,
        drain_s=args.drain_s,
        log_level=args.log_level,
        proxy_headers=args.proxy_headers,
        forwarded_allow_ips=args.forwarded_allow_ips,
        timeout_worker_healthcheck=args.timeout_worker_healthcheck,
        ssl_certfile=args.ssl_certfile,
        ssl_keyfile=args.ssl_keyfile,
    )
    sys.exit(serve(config))


def _demo(args: argparse.Namespace) -> str | None:
    """Serve the demo app."""
    problem = _cannot_listen(args.host, args.port)
    if problem:
        return problem
    os.environ["HUBBUB_BROKER"] = args.broker
    with ExitStack() as stack:
        if args.workers > 1:
            from ..demo.database import database
            from ..demo.users import signing_key

            os.environ["HUBBUB_DEMO_KEY"] = signing_key()
            if not os.environ.get("HUBBUB_DEMO_DATABASE"):
                folder = stack.enter_context(TemporaryDirectory(prefix="hubbub-demo-", ignore_cleanup_errors=True))
                os.environ["HUBBUB_DEMO_DATABASE"] = os.path.join(folder, "demo.sqlite")
            database()  # creates the tables before several processes try to
        config = Config(
            "hubbub.demo.app:create_app",
            factory=True,
            host=args.host,
            port=args.port,
            workers=args.workers,
            drain_s=args.drain_s,
        )
        sys.exit(serve(config))


_COMMANDS: Final = {"run": _run, "demo": _demo, "asyncapi": write_asyncapi, "types": write_types}


# Types of arguments


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes (1 or more)")
    return int(text)


def _whole_seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of seconds (1 or more)")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = inf
    if not 0 <= seconds < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (0 or more)")
    return seconds


def _broker(text: str) -> str:
    try:
        broker_from(text)
    except InvalidArgument as error:
        accepted = error.accepted.partition(", or an instance")[0]  # an instance can't be given on a command line
        raise argparse.ArgumentTypeError(f"{error.problem}; accepted: {accepted}") from None
    return text


# Checks before the server starts: a mistake is one line of output, and nothing has to stop again


def _no_certificate(certificate: str | None, key: str | None) -> str | None:
    """Loads the certificate. Returns the problem if it can't be used."""
    if certificate is None:
        return None if key is None else "--ssl-keyfile needs --ssl-certfile"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        files = f"the certificate {certificate} with the key {key}" if key else f"the certificate and key {certificate}"
        return f"can't load {files}: {error.strerror or error}"
    return None


def _cannot_listen(host: str, port: int) -> str | None:
    """Binds to the address, and lets go of it. Returns the problem if that fails."""
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        return f"can't listen on {host} port {port}: {error.strerror or error}"
    return None
