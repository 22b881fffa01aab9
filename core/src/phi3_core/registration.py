"""Import a plugin, and check its hooks against the specs. Only worker processes do this."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from . import hookspecs
from .discovery import ENTRY_POINT_GROUP, Backend
from .errors import BackendError
from .hookspecs import CONTRACT, OLDEST_CONTRACT
from .options import closest


def register(backend: Backend) -> tuple[pluggy.PluginManager, tuple[str, ...]]:
    """Import a plugin. Exceptions of the import are not caught.

    Returns:
        The manager that calls its hooks, and their names, sorted.

    Raises:
        BackendError: the plugin was written for another contract, has an unknown hook, or lacks a required one.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugin = EntryPoint(name=backend.name, value=backend.target, group=ENTRY_POINT_GROUP).load()
    _check_contract(backend)
    _check_hooks(plugin, backend)
    try:
        manager.register(plugin, name=backend.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise BackendError(" ".join(str(error).split())) from error
    names = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or []))
    missing = [name for name in hookspecs.REQUIRED if name not in names]
    if missing:
        unmarked = [name for name in missing if callable(getattr(plugin, name, None))]
        more = f"; {unmarked[0]} is there without @hookimpl" if unmarked else ""
        raise BackendError(f"{backend.target} does not implement {', '.join(missing)}{more}")
    return manager, names


def _check_contract(backend: Backend) -> None:
    """Check the contract that a plugin's module states, if any, against the supported ones."""
    stated = getattr(sys.modules[backend.target.partition(":")[0]], "CONTRACT", CONTRACT)
    if not isinstance(stated, int) or not OLDEST_CONTRACT <= stated <= CONTRACT:
        newer = isinstance(stated, int) and stated > CONTRACT
        raise BackendError(
            f"{backend.release} was written for contract {stated!r}, and this phi3-core knows "
            f"{_contracts(OLDEST_CONTRACT, CONTRACT)}: upgrade {'phi3-core' if newer else backend.distribution}"
        )


def _check_hooks(plugin: Any, backend: Backend) -> None:
    """Check the names and arguments of a plugin's hooks, and suggest what may have been meant.

    pluggy makes the same checks, but its errors suggest nothing.
    """
    specs = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if not inspect.isroutine(function) or not isinstance(marked, dict) or marked.get("optionalhook"):
            continue
        hook = marked.get("specname") or name
        if hook not in specs:
            raise BackendError(f"{backend.target} has the unknown hook {hook!r}{_meant(hook, specs)}")
        known = list(inspect.signature(specs[hook]).parameters)
        for argument in inspect.signature(function).parameters.values():
            required = argument.kind is argument.POSITIONAL_OR_KEYWORD and argument.default is argument.empty
            if required and argument.name not in known:
                words = f"takes the unknown argument {argument.name!r}{_meant(argument.name, known)}"
                raise BackendError(f"{hook} of {backend.target} {words}")


def _meant(word: str, known: Iterable[str]) -> str:
    """Return what may have been meant by a word that is not known, to be put behind it."""
    choices = tuple(known)
    meant = closest(word, choices)
    return f"; did you mean {meant}?" if meant else f"; there is {', '.join(choices)}"


def _contracts(oldest: int, newest: int) -> str:
    return str(newest) if oldest == newest else f"{oldest} to {newest}"
