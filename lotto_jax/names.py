"""Names in a configuration: one of a table of choices, or `"package.module:attribute"` of the user's own code."""

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def is_reference(name: str) -> bool:
    """Whether `name` refers to code, as `"package.module:attribute"` does."""
    return ":" in name


def choose(name: str, choices: Mapping[str, T], field: str) -> T | Any:
    """The entry of `choices` under `name`, or what `name` refers to where it is a reference.

    Args:
      name: a key of `choices`, or `"package.module:attribute"`.
      choices: what comes with the package.
      field: where the name was given, for messages: `"config.model.name"`.

    Raises:
      ValueError: if there is no such entry, or the reference cannot be resolved (see `resolve`).
    """
    if is_reference(name):
        return resolve(name, field)
    if name not in choices:
        raise ValueError(
            f'{field} is {name!r}; it takes one of {", ".join(sorted(choices))}, or "package.module:attribute" of your '
            "own code."
        )
    return choices[name]


def resolve(name: str, field: str) -> Any:
    """The attribute that `"package.module:attribute"` names; the module is imported.

    Modules in the current directory are found, as `python -m` finds them.

    Raises:
      ValueError: with one sentence, if `name` is no such reference, the module is not found, importing it fails, or it
        has no such attribute.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), attribute]):
        raise ValueError(f'{field} is {name!r}; a name with a colon is of the form "package.module:attribute".')
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise ValueError(f"{field} is {name!r}, {_cause(module_name, error)}.") from error
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, dir(module))
        remedy = f"did you mean {' or '.join(close)}?" if close else "define it there or correct the name."
        place = getattr(module, "__file__", None) or "built in"
        raise ValueError(f"{field} is {name!r}, but the module {module_name} ({place}) has no {attribute}; {remedy}")
    return getattr(module, attribute)


def places(values: Iterable[Any]) -> list[str]:
    """The directories in which the modules of all references among `values` were found."""
    found = set()
    for value in values:
        for name in value if isinstance(value, list | tuple) else [value]:
            package = sys.modules.get(name.partition(":")[0].partition(".")[0]) if isinstance(name, str) else None
            if package is not None and is_reference(name) and (file := getattr(package, "__file__", None)):
                place = os.path.dirname(os.path.abspath(file))
                found.add(os.path.dirname(place) if hasattr(package, "__path__") else place)
    return sorted(found)


def _cause(module_name: str, error: Exception) -> str:
    """Why the module could not be imported, and what helps."""
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        return (
            f"but there is no module {error.name}; run in the directory that holds {module_name.split('.')[0]}, or put "
            "that directory on PYTHONPATH"
        )
    if isinstance(error, SyntaxError):
        return f"but {error.filename}, line {error.lineno}, is not valid Python ({error.msg}); correct it there"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}"
    return f"but importing {module_name} fails in {place} ({type(error).__name__}: {error}); correct it there"
