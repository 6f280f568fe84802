"""`from_thread` offers the manager's calls as they are."""

from __future__ import annotations

import inspect
import pydoc

import pytest

from hubbub import ConnectionManager
from hubbub.from_thread import FromThread

CALLS = [name for name in vars(FromThread) if name[0] != "_"]


def test_every_call_that_publishes_or_queries_is_there() -> None:
    coroutines = {name for name, each in inspect.getmembers(ConnectionManager, inspect.iscoroutinefunction)}
    of_sockets = {"drain", "join", "leave"}  # whose event loop is that of the handler
    assert set(CALLS) == {name for name in coroutines if name[0] != "_"} - of_sockets


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_signature_of_the_managers_method(name: str) -> None:
    blocking, method = getattr(FromThread, name), getattr(ConnectionManager, name)
    assert inspect.signature(blocking, eval_str=True) == inspect.signature(method, eval_str=True)
    assert not inspect.iscoroutinefunction(blocking)


@pytest.mark.parametrize("name", CALLS)
def test_help_shows_what_a_call_takes_and_gives(name: str) -> None:
    shown = pydoc.plain(pydoc.render_doc(getattr(ConnectionManager().from_thread, name)))
    assert "*args" not in shown
    assert " -> " in shown
    first_line, *_ = (getattr(FromThread, name).__doc__ or "").splitlines()
    assert first_line
    assert first_line in shown


def test_help_of_the_manager_shows_it() -> None:
    assert "from_thread" in pydoc.plain(pydoc.render_doc(ConnectionManager))
    assert set(CALLS) <= set(dir(ConnectionManager().from_thread))
