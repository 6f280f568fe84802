"""What the HTTP API answers to requests that no client of it would send, and to those who may not use it."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import re
import runpy
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import jwt
import pytest
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel
from starlette.applications import Starlette

from hubbub import ConnectionManager, InvalidArgument, RoomOptions
from hubbub.http_api.models import MAX_CHANNELS, MAX_COMMANDS
from hubbub.http_api.router import MAX_BODY_BYTES
from tests.integration.endpoints import free_port
from tests.integration.support import DEADLINE_S, LiveServer, eventually, serving

pytestmark = pytest.mark.anyio

KEY = "a-key-for-tests-0123456789"
JSON = {"X-API-Key": KEY, "Content-Type": "application/json"}


def http_session() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, verify=False, timeout=DEADLINE_S)  # certificates take long to load


class Site:
    """An app with three APIs: with a key, with a dependency, and with a dependency that reads the body.

    Attributes:
        admitted: How often the dependency admitted a request.
    """

    def __init__(self) -> None:
        self.app = FastAPI()
        self.manager = ConnectionManager(rooms={"kept": RoomOptions(history=10)})
        self.manager.install(self.app)
        self.manager.http_api(self.app, key=KEY)
        self.admitted = 0

        async def guard(x_role: Annotated[str, Header()] = "") -> None:
            if x_role != "backend":
                raise HTTPException(403, "for back ends")
            self.admitted += 1

        async def signed(request: Request, x_length: Annotated[int, Header()]) -> None:
            if len(await request.body()) != x_length:
                raise HTTPException(401, "the signature is wrong")

        self.manager.http_api(self.app, "/guarded", dependency=guard)
        self.manager.http_api(self.app, "/signed", dependency=signed, include_in_schema=False)
        self.server: LiveServer

    async def post(
        self, path: str, content: bytes | str = b"{}", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        async with http_session() as http:
            return await http.post(
                self.server.http(path), content=content, headers=JSON if headers is None else headers
            )

    async def ask(self, method: str, **fields: Any) -> Any:
        answer = await self.post(f"/api/{method}", json.dumps(fields))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with serving(site.app) as server:
        site.server = server
        yield site


# Who may use it


@pytest.mark.parametrize("key", [None, "", KEY[:-1], KEY + "0", KEY.upper(), "ü" * 26, f"apikey {KEY}"])
async def test_a_request_without_the_key_is_refused_before_its_body_is_read(site: Site, key: str | None) -> None:
    headers = [(b"Content-Type", b"application/json")]
    if key is not None:
        headers.append((b"X-API-Key", key.encode()))
    async with http_session() as http:
        for content in (b"{}", b"{", b"x" * (MAX_BODY_BYTES + 1)):
            answer = await http.post(site.server.http("/api/publish"), content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, 101)


async def test_a_dependency_guards_the_api_in_the_place_of_a_key(site: Site) -> None:
    plain = {"Content-Type": "application/json"}
    for content in (b"{}", b"{", b"x" * (MAX_BODY_BYTES + 1)):
        answer = await site.post("/guarded/info", content, plain)
        assert (answer.status_code, answer.json()) == (403, {"detail": "for back ends"})
    role = {**plain, "X-Role": "backend"}
    before = site.admitted
    assert "nodes" in (await site.post("/guarded/info", b"{}", role)).json()["result"]
    assert site.admitted == before + 1
    assert (await site.post("/guarded/info", b"{", role)).json()["error"]["code"] == 107
    assert (await site.post("/guarded/info", b"x" * (MAX_BODY_BYTES + 1), role)).status_code == 413


async def test_a_dependency_may_verify_a_signature_of_the_body_and_ask_for_headers(site: Site) -> None:
    plain = {"Content-Type": "application/json"}
    body = b'{"channel": "kept" ,"data":1}'
    answer = await site.post("/signed/publish", body, {**plain, "X-Length": str(len(body))})
    assert answer.json()["result"]["offset"] >= 1
    assert (await site.post("/signed/publish", body, {**plain, "X-Length": "5"})).status_code == 401
    missing = await site.post("/signed/publish", body, plain)
    assert (missing.status_code, missing.json()["detail"][0]["loc"]) == (422, ["header", "x-length"])


async def test_the_key_is_in_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await site.ask("publish", channel="kept", data=1)
    await site.post("/api/publish", b"{", {**JSON, "X-API-Key": KEY + "wrong"})
    assert caplog.records
    assert KEY not in caplog.text


# Bad requests


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON"),
        (b'{"channel": NaN}', "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "no object"),
        (b'"text"', "no object"),
        (b"null", "no object"),
        (b'{"data": ' + b"[" * 500 + b"]" * 500 + b"}", "nested"),
        (b'{"data": 1}', "channel: "),
        (b'{"channel": "", "data": 1}', "channel: "),
        (b'{"channel": 5, "data": 1}', "channel: "),
        (b'{"channel": ["a"], "data": 1}', "channel: "),
        (b'{"channel": "a"}', "data is required"),
        (b'{"channel": "a", "data": 1, "b64data": "AA=="}', "both"),
        (b'{"channel": "a", "b64data": "A"}', "b64data: it is not base64"),
        (b'{"channel": "a", "data": 1, "skip_history": "yes"}', "skip_history: "),
        (b'{"channel": "a", "data": 1, "idempotency_key": 5}', "idempotency_key: "),
        (b'{"channel": "a", "data": 1, "chanel": "b"}', "chanel: "),
        (b'{"channel": "' + b"a" * 256 + b'", "data": 1}', "255 bytes"),
    ],
)
async def test_a_bad_request_is_answered_with_the_reason(site: Site, body: bytes, problem: str) -> None:
    answer = await site.post("/api/publish", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (200, 107)
    assert error["message"].startswith("bad request: ")
    assert problem in error["message"]


@pytest.mark.parametrize("channel", ["$", "$user", "$user:", "$everybody", "$everyone:x"])
async def test_a_name_that_is_reserved_is_an_unknown_channel(site: Site, channel: str) -> None:
    for method in ("publish", "presence", "presence_stats", "history", "history_remove"):
        fields = {"data": 1} if method == "publish" else {}
        assert (await site.ask(method, channel=channel, **fields))["error"]["code"] == 102
    assert (await site.ask("subscribe", user="ann", channel=channel))["error"]["code"] == 102
    assert (await site.ask("unsubscribe", user="ann", channel=channel))["error"]["code"] == 102


async def test_a_field_that_is_not_served_is_refused_unless_it_has_no_effect(site: Site) -> None:
    error = (await site.ask("publish", channel="a", data=1, tags={"a": "b"}, delta=True))["error"]
    assert error == {"code": 108, "message": "not available: delta, tags can't be served here"}
    assert "result" in await site.ask("publish", channel="a", data=1, tags={}, delta=False, version=0)
    for field, value in (("data", {"a": 1}), ("recover_since", {"offset": 1, "epoch": "e"}), ("session", "s")):
        fields: dict[str, Any] = {field: value}
        assert (await site.ask("subscribe", user="ann", channel="a", **fields))["error"]["code"] == 108
    assert (await site.ask("disconnect", user="ann", session="s"))["error"]["code"] == 108


async def test_an_empty_body_is_a_request_without_fields(site: Site) -> None:
    assert "nodes" in (await site.post("/api/info", b"")).json()["result"]
    assert (await site.post("/api/publish", b"")).json()["error"]["code"] == 107


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a_body_of_another_type_is_refused(site: Site, kind: str) -> None:
    answer = await site.post("/api/info", b"{}", {"X-API-Key": KEY, "Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, 107)
    assert "application/json" in answer.json()["error"]["message"]


async def test_other_methods_and_paths_are_what_they_are_in_the_app(site: Site) -> None:
    async with http_session() as http:
        assert (await http.get(site.server.http("/api/publish"), headers=JSON)).status_code == 405
        assert (await http.head(site.server.http("/api/publish"), headers=JSON)).status_code == 405
        options = await http.options(site.server.http("/api/publish"), headers={"Origin": "https://evil.example"})
        assert options.status_code == 405
        assert "access-control-allow-origin" not in options.headers
    assert (await site.post("/api/unknown")).status_code == 404
    assert (await site.post("/api")).status_code == 404


async def test_a_body_has_a_bound_however_it_comes(site: Site) -> None:
    room = json.dumps({"channel": "a", "data": ""})
    fits = room[:-2] + "x" * (MAX_BODY_BYTES - len(room)) + room[-2:]
    assert len(fits) == MAX_BODY_BYTES
    assert "result" in (await site.post("/api/publish", fits)).json()
    over = await site.post("/api/publish", fits + " ")
    assert (over.status_code, over.json()["error"]["code"]) == (413, 106)
    sent = 0

    async def chunks() -> Any:
        nonlocal sent
        while sent < 100 * MAX_BODY_BYTES:
            sent += 65536
            yield b" " * 65536

    async with http_session() as http:
        try:
            answer = await http.post(site.server.http("/api/publish"), content=chunks(), headers=JSON)
            assert answer.status_code == 413
        except httpx.TransportError:
            pass  # the server has answered, and closed the connection
    assert sent < 100 * MAX_BODY_BYTES


async def test_a_body_that_ends_early_publishes_nothing_and_logs_no_traceback(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    before = site.manager.stats().published
    _, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    head = f"POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    writer.write(f'{head}Content-Length: 1000\r\n\r\n{{"channel": "kept", '.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await site.ask("publish", channel="after", data=1)
    await eventually(lambda: site.manager.stats().published == before + 1)
    assert "Traceback" not in caplog.text


async def test_many_names_and_commands_are_refused_at_once(site: Site) -> None:
    commands: list[Any] = [{"info": {}}] * (MAX_COMMANDS + 1)
    assert (await site.ask("batch", commands=commands))["error"]["code"] == 106
    assert (await site.ask("batch", commands=[{}] * 10_000))["error"]["code"] == 106
    assert (await site.ask("broadcast", channels=["a"] * (MAX_CHANNELS + 1), data=1))["error"]["code"] == 106
    answers = (await site.ask("broadcast", channels=["a"] * MAX_CHANNELS, data=1))["result"]["responses"]
    assert len(answers) == MAX_CHANNELS


@pytest.mark.parametrize("parallel", [False, True])
async def test_each_command_of_a_batch_has_its_reply(site: Site, parallel: bool) -> None:
    batch: Any = {"commands": [{"info": {}}]}
    commands: list[Any] = [
        {"publish": {"channel": "kept", "data": 1}},
        {"batch": batch},
        {"unknown": {}},
        {"publish": {"channel": "kept"}},
        {"publish": [1]},
        {"publish": {"channel": "kept", "data": 1, "tags": {"a": "b"}}},
        {},
        {"info": {}, "channels": {}},
        {"history": {"channel": "kept", "limit": -1}},
    ]
    answer = await site.ask("batch", commands=commands, parallel=parallel)
    codes = [each.get("error", {}).get("code") for each in answer["replies"]]
    assert codes == [None, 107, 104, 107, 107, 108, 107, 107, None]
    assert answer["replies"][0]["publish"]["offset"] >= 1
    assert (await site.ask("batch", commands=[5]))["error"]["code"] == 107
    assert (await site.ask("batch", commands=[])) == {"replies": []}


async def test_numbers_and_texts_are_published_as_they_are(site: Site) -> None:
    values: list[Any] = [2**70, -(2**63), 1.5, None, True, "", "ü\u2028👋", [], {}, {"a": [None, {"b": 0.1}]}]
    await site.ask("history_remove", channel="kept")
    for value in values:
        assert "result" in await site.ask("publish", channel="kept", data=value)
    page = (await site.ask("history", channel="kept", limit=-1))["result"]
    assert [each["data"] for each in page["publications"]] == values


async def test_a_message_is_checked_where_messages_of_the_app_are() -> None:
    class Said(BaseModel):
        text: str

    app = FastAPI()
    manager = ConnectionManager(check_sends=True)
    manager.install(app)
    live = manager.endpoint("/live", auth=None)

    @live.room("chat:{room}", sends=Said)
    async def may_read(room: str) -> bool:
        return True

    manager.http_api(app, key=KEY)
    with serving(app) as server:
        async with http_session() as http:

            async def ask(**fields: Any) -> Any:
                return (await http.post(server.http("/api/publish"), json=fields, headers=JSON)).json()

            assert "result" in await ask(channel="chat:a", data={"text": "hello"})
            error = (await ask(channel="chat:a", data={"txt": "hello"}))["error"]
            assert error["code"] == 107
            assert "lacks 'text'" in error["message"] or "text: " in error["message"]
            assert (await ask(channel="chat:a", b64data="AAE="))["error"]["code"] == 107
            assert "result" in await ask(channel="other", data={"txt": "hello"})


async def test_a_broker_that_is_away_is_a_temporary_error(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    manager = ConnectionManager(f"redis://127.0.0.1:{free_port()}?timeout_s=0.05", rooms={"*": RoomOptions(history=5)})
    manager.install(app)
    manager.http_api(app, key=KEY)
    asked: dict[str, dict[str, Any]] = {
        "publish": {"channel": "a", "data": 1},
        "disconnect": {"user": "ann"},
        "history": {"channel": "a", "limit": 1},
        "history_remove": {"channel": "a"},
        "channels": {},
        "info": {},
    }
    with serving(app) as server:
        async with http_session() as http:

            async def ask(method: str, **fields: Any) -> Any:
                return (await http.post(server.http(f"/api/{method}"), json=fields, headers=JSON)).json()

            for method, fields in asked.items():
                error = (await ask(method, **fields))["error"]
                assert (error["code"], error["temporary"]) == (100, True)
            commands = [{method: fields} for method, fields in asked.items()]
            replies = (await ask("batch", commands=commands, parallel=True))["replies"]
            assert {each["error"]["code"] for each in replies} == {100}
            responses = (await ask("broadcast", channels=["a", "b"], data=1))["result"]["responses"]
            assert [each["error"]["temporary"] for each in responses] == [True, True]
    assert "the HTTP API could not do 'publish'" in caplog.text


# OpenAPI, and mistakes of the app


async def test_openapi_describes_the_routes_with_their_models(site: Site) -> None:
    document = site.app.openapi()
    assert not [path for path in document["paths"] if path.startswith("/signed")]
    publish = document["paths"]["/api/publish"]["post"]
    assert publish["tags"] == ["HTTP API"]
    assert publish["summary"] == "Publish a message to a channel"
    schema = publish["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/ApiPublishRequest"}
    answer = publish["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/ApiPublishAnswer"}
    assert publish["security"] == [{"HTTP API key": []}]
    assert {"401", "413", "415"} <= publish["responses"].keys()
    assert "security" not in document["paths"]["/guarded/publish"]["post"]
    assert len([path for path in document["paths"] if path.startswith("/api/")]) == 13


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "everybody could use the API"),
        ({"key": KEY, "dependency": lambda: None}, "both"),
        ({"key": ""}, "0 characters"),
        ({"key": "short"}, "5 characters"),
        ({"key": "a" * 40}, "repeats"),
        ({"key": "a key with spaces in it"}, "no header can carry"),
        ({"key": "schlüssel-0123456789"}, "no header can carry"),
        ({"key": []}, "there is no key"),
        ({"key": [KEY, "short"]}, r"key\[1\]"),
        ({"key": [KEY, None]}, r"key\[1\]"),
        ({"key": KEY.encode()}, "there is no key"),
        ({"dependency": 5}, "dependency"),
        ({"key": KEY, "path": "api"}, "path"),
        ({"key": KEY, "path": "/"}, "path"),
        ({"key": KEY, "path": "/{tenant}"}, "path"),
    ],
)
def test_a_wrong_argument_raises_and_shows_no_key(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem) as raised:
        ConnectionManager().http_api(FastAPI(), **arguments)
    key = arguments.get("key")
    for each in [key] if isinstance(key, str) else key or []:
        if isinstance(each, str) and each:
            assert each not in str(raised.value)


def test_an_api_needs_a_fastapi_app_and_a_path_of_its_own() -> None:
    manager = ConnectionManager()
    with pytest.raises(InvalidArgument, match="a FastAPI app"):
        manager.http_api(Starlette(), key=KEY)
    app = FastAPI()
    manager.http_api(app, key=KEY)
    with pytest.raises(InvalidArgument, match="an API at '/api' already"):
        manager.http_api(app, key=KEY)
    manager.http_api(app, "/other", key=KEY)


# The docs


CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def documented() -> Iterator[LiveServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_KEY", KEY)
        example = runpy.run_path(str(CHECKOUT / "examples" / "http_api.py"))
    with serving(example["app"]) as server:
        yield server


async def run(server: LiveServer, *command: str) -> str:
    """Runs a command that speaks to ``localhost:8000``, and returns its output."""
    here = [part.replace("localhost:8000", f"127.0.0.1:{server.port}") for part in command]
    environment = {**os.environ, "API_KEY": KEY, "no_proxy": "*", "NO_PROXY": "*"}
    process = await asyncio.create_subprocess_exec(*here, env=environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0
    return output.decode()


async def test_curl_does_what_the_docs_say(documented: LiveServer) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    page = (CHECKOUT / "docs" / "http-api.md").read_text()
    publish, batch = re.findall(r"^```sh\n(curl .*?)^```$", page, re.DOTALL | re.MULTILINE)
    answer = json.loads(await run(documented, "sh", "-c", publish.replace("curl ", "curl --silent ", 1)))
    assert answer["result"].keys() == {"offset", "epoch"}
    replies = json.loads(await run(documented, "sh", "-c", batch.replace("curl ", "curl --silent ", 1)))["replies"]
    assert replies[0]["publish"]["offset"] == answer["result"]["offset"] + 1
    assert replies[1] == {"presence_stats": {"num_clients": 0, "num_users": 0}}


async def test_the_client_of_the_docs_publishes_once(documented: LiveServer) -> None:
    program = (CHECKOUT / "examples" / "http_api_client.py").read_text()
    text, error = (await run(documented, sys.executable, "-c", program)).splitlines()
    assert ast.literal_eval(text).count("Goal!") >= 1
    assert f"print(error.code, error.message)  # {error}" in program


async def test_a_service_with_a_token_uses_the_api_of_the_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    key = os.urandom(32).hex()
    monkeypatch.setenv("JWT_KEY", key)
    app = runpy.run_path(str(CHECKOUT / "examples" / "http_api_dependency.py"))["app"]
    with serving(app) as server:
        statuses = []
        async with http_session() as http:
            for sub in ("billing", "another"):
                token = jwt.encode({"sub": sub, "exp": time.time() + 60}, key, "HS256")
                headers = {"Authorization": f"Bearer {token}"}
                statuses.append((await http.post(server.http("/api/info"), json={}, headers=headers)).status_code)
            statuses.append((await http.post(server.http("/api/info"), json={})).status_code)
    assert statuses == [200, 403, 401]
