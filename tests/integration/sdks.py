"""All clients: the official SDKs for Python, and for JavaScript in Node.js, in JSON and in Protobuf; and our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.integration.sdk import Sdk
from tests.integration.sdk_js import JsSdk, Node, require_packages
from tests.integration.sdk_python import PythonSdk

SDKS: Final = ("python-json", "python-protobuf", "node-json", "node-protobuf", "node-ours")
FALLBACKS: Final = (
    "node-json-http_stream",
    "node-protobuf-http_stream",
    "node-json-sse",
    "node-ours-http_stream",
    "node-ours-sse",
)


def sdk_of(name: str, node: Node) -> Sdk:
    """One of the `SDKS`, or of the `FALLBACKS`."""
    match name:
        case "python-json" | "python-protobuf":
            return PythonSdk(protobuf=name == "python-protobuf")
        case "node-json":
            return JsSdk(node.at, sdk="json")
        case "node-protobuf":
            return JsSdk(node.at, sdk="protobuf")
        case "node-ours":
            return JsSdk(node.at, sdk="ours")
        case "node-json-http_stream":
            return JsSdk(node.at, sdk="json", transports=["http_stream"])
        case "node-protobuf-http_stream":
            return JsSdk(node.at, sdk="protobuf", transports=["http_stream"])
        case "node-ours-http_stream":
            return JsSdk(node.at, sdk="ours", transports=["http_stream"])
        case "node-ours-sse":
            return JsSdk(node.at, sdk="ours", transports=["sse"])
        case "node-json-sse":
            return JsSdk(node.at, sdk="json", transports=["sse"])
    raise AssertionError(name)


@pytest.fixture(params=[*SDKS, *(pytest.param(name, marks=pytest.mark.slow) for name in FALLBACKS)])
def sdk(request: pytest.FixtureRequest, node: Node) -> Sdk:
    """Each of the `SDKS`, and the `FALLBACKS`."""
    return sdk_of(request.param, node)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A Node.js for the clients of a module's tests."""
    require_packages()
    node = Node()
    yield node
    node.stop()
