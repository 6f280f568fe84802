"""The app that an argument of the command line names, as ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any


class NotAnApp(Exception):
    """The argument names no app. Its text is the line to print."""


def imported_app(name: str, *, factory: bool) -> Any:
    """Imports an app, or the function that creates it. An error that its module raises is not caught.

    Args:
        name: ``MODULE:NAME``.
        factory: Whether it is a function that creates the app.

    Raises:
        NotAnApp: It is neither.
    """
    module_name, _, path = name.partition(":")
    if not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise NotAnApp(f"{name!r} is not MODULE:NAME, as in app:app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the app's module imports
        raise NotAnApp(f"no module {module_name!r} in {os.getcwd()} or among the installed packages") from None
    for attribute in path.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise NotAnApp(f"the module {module_name!r} has no attribute {path!r}") from None
    kind = type(found).__name__
    if factory:
        if not _accepts(found, 0):
            raise NotAnApp(f"--factory: {name!r} ({kind}) can't be called without arguments")
    elif not _accepts(found, 3):
        hint = "; if it is a function that creates the app, add --factory" if _accepts(found, 0) else ""
        raise NotAnApp(f"{name!r} ({kind}) is not an ASGI app{hint}")
    return found


def _accepts(found: object, arguments: int) -> bool:
    """Returns whether a value can be called with a number of arguments, as far as its signature shows."""
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # no signature
        pass
    return True
