"""The hint in the warning about a coroutine that was never awaited."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from hubbub import Connection, ConnectionManager

HINTED = [
    ConnectionManager.broadcast,
    ConnectionManager.broadcast_to_room,
    ConnectionManager.send_to_user,
    ConnectionManager.send_personal,
    Connection.send,
    Connection.send_text,
    Connection.send_bytes,
    Connection.send_json,
]


@pytest.fixture(params=HINTED, ids=lambda method: method.__qualname__)
def method(request: pytest.FixtureRequest) -> Callable[..., Any]:
    found: Callable[..., Any] = request.param
    return found


def plain_name(method: Callable[..., Any]) -> str:
    owner = Connection if method in vars(Connection).values() else ConnectionManager
    return f"{owner.__name__}.{method.__name__}"


def test_an_error_about_arguments_names_the_method_alone(method: Callable[..., Any]) -> None:
    for arguments in ((), (None,) * 9):
        with pytest.raises(TypeError) as raised:
            method(*arguments)
        assert str(raised.value).startswith(f"{plain_name(method)}() ")


def test_a_task_and_its_coroutine_show_the_method_alone(method: Callable[..., Any]) -> None:
    async def shown() -> str:
        coroutine = method(*[None] * _required(method))
        task = asyncio.ensure_future(coroutine)
        text = f"{coroutine!r} {coroutine.__qualname__} {task!r}"
        task.cancel()
        await asyncio.wait([task])
        return text

    text = asyncio.run(shown())
    assert text.count(plain_name(method)) == 3
    assert "plain function" not in text


def test_the_name_still_finds_the_method(method: Callable[..., Any]) -> None:
    assert pickle.loads(pickle.dumps(method)) is method
    assert f"{method.__qualname__}" == str(method.__qualname__) == plain_name(method)


def test_the_warning_names_the_call_for_plain_functions(method: Callable[..., Any]) -> None:
    said = rf"^coroutine '{plain_name(method)} \(in a plain function: [\w.]+_nowait\)' was never awaited"
    with pytest.warns(RuntimeWarning, match=said):
        method(*[None] * _required(method))


def _required(method: Callable[..., Any]) -> int:
    parameters = inspect.signature(method).parameters.values()
    return sum(each.default is each.empty for each in parameters)
