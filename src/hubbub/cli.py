"""The command line: ``hubbub demo``."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from .__about__ import __version__

# Seconds until a stopping server cuts what has not ended by itself.
_GRACEFUL_S = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the ``hubbub`` command.

    Args:
        argv: The arguments; by default those of the process.

    Raises:
        SystemExit: 2 for wrong arguments, 1 when the server can't start.
    """
    parser = argparse.ArgumentParser(prog="hubbub", description="The real-time layer for FastAPI.")
    parser.add_argument("--version", action="version", version=f"hubbub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    demo = commands.add_parser("demo", help="serve the demo app", description="Serves the demo app.")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    demo.add_argument("--port", type=_port, default=8000, help="port to listen on (default: %(default)s; 0: any free)")
    args = parser.parse_args(argv)

    problem = _cannot_listen(args.host, args.port)
    if problem:
        parser.exit(1, f"hubbub: can't listen on {args.host} port {args.port}: {problem}\n")
    _serve("hubbub.demo.app:create_app", args.host, args.port)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _cannot_listen(host: str, port: int) -> str | None:
    """Why not, if so. Asked before the app starts, so that the answer is one line and nothing has to stop again."""
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
        return error.strerror or str(error)
    return None


def _serve(app: str, host: str, port: int) -> None:
    loggers = LOGGING_CONFIG["loggers"] | {"hubbub": {"handlers": ["default"], "level": "INFO", "propagate": False}}
    uvicorn.run(
        app,
        factory=True,
        host=host,
        port=port,
        log_config=LOGGING_CONFIG | {"loggers": loggers},
        timeout_graceful_shutdown=_GRACEFUL_S,
    )
