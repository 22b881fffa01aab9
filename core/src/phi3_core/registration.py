"""Import a plugin, and check its hooks against the specs. Only worker processes do this."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pluggy

from . import hookspecs
from .discovery import ENTRY_POINT_GROUP, Backend
from .errors import BackendError
from .hookspecs import CONTRACT, OLDEST_CONTRACT
from .metadata import entry_point
from .options import closest

_SPECS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def register(backend: Backend) -> tuple[pluggy.PluginManager, tuple[str, ...]]:
    """Import a plugin. Exceptions of the import are not caught.

    Returns:
        The manager that calls its hooks, and their names, sorted.

    Raises:
        BackendError: the plugin was written for another contract, has an unknown hook, lacks a required one, or its
            hooks cannot be called as they are.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    point = entry_point(backend.name, backend.target, ENTRY_POINT_GROUP)
    plugin = point.load()
    _check_contract(backend, point.module)
    for name, function, marked in _marked(plugin):
        _check_hook(plugin, backend, marked.get("specname") or name, function)
    try:
        manager.register(plugin, name=backend.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise BackendError(" ".join(str(error).split())) from error
    names = tuple(sorted(caller.name for caller in manager.get_hookcallers(plugin) or []))
    _check_unmarked(plugin, backend, point.module, names)
    return manager, names


def _check_contract(backend: Backend, module: str) -> None:
    """Check the contract that a plugin's module states, if any, against the supported ones."""
    stated = getattr(sys.modules[module], "CONTRACT", CONTRACT)
    if not isinstance(stated, int) or not OLDEST_CONTRACT <= stated <= CONTRACT:
        newer = isinstance(stated, int) and stated > CONTRACT
        raise BackendError(
            f"{backend.release} was written for contract {stated!r}, and this phi3-core knows "
            f"{_contracts(OLDEST_CONTRACT, CONTRACT)}: upgrade {'phi3-core' if newer else backend.distribution}"
        )


def _marked(plugin: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield what is marked ``@hookimpl`` in a plugin: its name, itself, and the settings of the mark."""
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None)
        if isinstance(marked, dict) and not marked.get("optionalhook"):
            yield name, function, marked


def _check_hook(plugin: Any, backend: Backend, hook: str, function: Any) -> None:
    """Check the name and the arguments of a hook, and suggest what may have been meant.

    pluggy checks less, and its errors suggest nothing: it passes over what is no function, and passes nothing to
    arguments that are given by name only.
    """
    if hook not in _SPECS:
        raise BackendError(f"{backend.target} has the unknown hook {hook!r}{_meant(hook, _SPECS)}")
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        kind = type(function).__name__
        raise BackendError(f"{hook} of {backend.target} is no function but a {kind}: put @hookimpl on a function")
    known = list(inspect.signature(_SPECS[hook]).parameters)
    for argument in inspect.signature(function).parameters.values():
        if words := _problem(argument, known, is_class=inspect.isclass(plugin)):
            raise BackendError(f"{hook} of {backend.target} takes {words}")


def _problem(argument: inspect.Parameter, known: list[str], *, is_class: bool) -> str:
    """Return why nothing would be passed to an argument of a hook; empty if something is, or need not be."""
    if argument.kind in {argument.VAR_POSITIONAL, argument.VAR_KEYWORD}:
        given = argument.replace(annotation=argument.empty)
        return f"{given}, to which nothing is passed: name the arguments it needs, of {', '.join(known)}"
    if argument.default is not argument.empty:
        return ""
    if argument.kind is argument.KEYWORD_ONLY:
        return f"{argument.name!r} as keyword-only, and such arguments get nothing: write it without the *"
    if argument.name in known:
        return ""
    if is_class:
        return f"the argument {argument.name!r} of a class: name an object of it in the entry point, not the class"
    return f"the unknown argument {argument.name!r}{_meant(argument.name, known)}"


def _check_unmarked(plugin: Any, backend: Backend, module: str, names: Iterable[str]) -> None:
    """Check that no required hook is missing, and that no other one lacks its mark: it would never be called."""
    unmarked = [name for name in _SPECS if name not in names and callable(getattr(plugin, name, None))]
    if missing := [name for name in hookspecs.REQUIRED if name not in names]:
        found = next((name for name in unmarked if name in missing), None)
        more = f"; {found} is there without @hookimpl" if found else ""
        raise BackendError(f"{backend.target} does not implement {', '.join(missing)}{more}")
    for name in unmarked:
        # A function of another module may be used by the hooks, and bear the name by chance.
        if getattr(getattr(plugin, name), "__module__", None) == module:
            raise BackendError(f"{name} of {backend.target} is there without @hookimpl: mark it, or rename it")


def _meant(word: str, known: Iterable[str]) -> str:
    """Return what may have been meant by a word that is not known, to be put behind it."""
    choices = tuple(known)
    meant = closest(word, choices)
    return f"; did you mean {meant}?" if meant else f"; there is {', '.join(choices)}"


def _contracts(oldest: int, newest: int) -> str:
    return str(newest) if oldest == newest else f"{oldest} to {newest}"
