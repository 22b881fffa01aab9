"""Take names, home folders and secrets out of the texts of a report. Pure; :mod:`.privacy` tells what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from phi3_core.values import KINDS, PRECISIONS, SEVERITIES

from .privacy import Identity, is_public, quotations, spellings

SECRET, USER, HOST, STORE, HOME, EMAIL = "<secret>", "<user>", "<host>", "<store>", "~", "<email>"
_SHORTEST_WORD = 3
"""Characters of a name from which on it is replaced outside of paths, too."""
_ORDINARY = {
    *(*KINDS, *PRECISIONS, *SEVERITIES, "works", "wrong", "dead", "refused", "untried", "core", "cpython", "sample"),
    *("root", "user", "users", "admin", "administrator", "guest", "home", "store", "public", "default", "runner"),
    *("linux", "windows", "macos", "debian", "ubuntu", "python", "pip", "intel", "amd", "nvidia", "arm64", "x86_64"),
    *("phi", "phi3", "openvino", "dml", "directml", "onnxruntime", "torch", "numpy", "driver", "memory", "device"),
    *("dev", "usr", "lib", "bin", "opt", "tmp", "var", "etc", "sys", "proc", "mnt", "media", "data", "work", "src"),
    *("the", "and", "for", "not", "are", "has", "was", "with", "from", "this", "that", "local", "localhost"),
}
"""Names that say nothing, and that a report has for other reasons: they are replaced in paths only."""
_LABELS = tuple(f"{word}{sign}" for word in ("user", "username", "owner", "login") for sign in ("=", ": ", " '", "='"))
"""What stands before a short or ordinary name that is one of the user all the same."""
_SEPARATOR = r"[\\/]+"
_FOLDERS_OF_HOMES = rf"(?:(?<![\w.~-])/+(?:var/+)?home|{_SEPARATOR}(?:Users|Documents and Settings)){_SEPARATOR}"
_COMPONENT_WITH_SPACES = r"[^\\/:*?\"'<>|\r\n]*[^\\/:*?\"'<>|\s](?=[\\/])"  # told by the next separator
_COMPONENT = r"[^\\/:*?\"'<>|\s,;)]+"
_TOKENS = (
    r"\b(?:hf_|api_org_|gh[pousr]_|github_pat_|glpat-|pypi-|sk-|xox[abprs]-|AKIA)[A-Za-z0-9_-]{8,}",
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",  # JSON web tokens
    r"(?<=Bearer )[A-Za-z0-9._~+/=-]{8,}",
    r"(?<=Basic )[A-Za-z0-9+/]{8,}=*",
    r"(?<=://)[^/\s'\"]+(?=@)",  # user and password of a URL
)
_ASSIGNED = (
    r"((?:password|passwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token)['\"]?\s*[=:]\s*['\"]?)"
    r"(?!<secret>|\(set\))[^\s&,;'\"]{4,}"
)
_PARAMETER = r"([?&][\w.-]*(?:token|key|secret|password|signature|credential|sig)=)[^&\s'\"]+"
_URL = r"(\b(?:https?|ftp|wss?|socks[45]h?|ssh|smb)://(?:<secret>@)?)(\[[^\]]+\]|[^/:?#\s'\"@]+)"

Rules = tuple[tuple[re.Pattern[str], str], ...]
"""Regular expressions, and what takes the place of what they match."""


def anonymous(content: Any, identity: Identity) -> Any:
    """Return JSON-compatible data with everything private replaced in all strings."""
    return _replaced(content, tuple(_rules(identity)))


def _replaced(content: Any, rules: Rules) -> Any:
    if isinstance(content, str):
        return _replaced_urls(_applied(content, rules))
    if isinstance(content, dict):
        return {key: _replaced(value, rules) for key, value in content.items()}
    return [_replaced(item, rules) for item in content] if isinstance(content, (list, tuple)) else content


def _applied(text: str, rules: Rules) -> str:
    for pattern, word in rules:
        text = pattern.sub(word, text)
    return text


def _rules(identity: Identity) -> Iterator[tuple[re.Pattern[str], str]]:
    for secret in identity.secrets:
        forms = sorted(quotations(secret), key=len, reverse=True)
        # Digits behind percent signs are of either case.
        any_form = "|".join(f"(?i:{re.escape(form)})" if "%" in form else re.escape(form) for form in forms)
        yield re.compile(any_form), f"{SECRET}@" if secret.endswith("@") else SECRET
    for token in _TOKENS:
        yield re.compile(token), SECRET
    yield _compiled(_PARAMETER), rf"\1{SECRET}"
    yield _compiled(_ASSIGNED), rf"\1{SECRET}"
    folders = {identity.home: HOME, identity.store: STORE}
    for folder in sorted(filter(None, folders), key=len, reverse=True):
        if (pattern := _folder(folder)) is not None:
            yield pattern, folders[folder]
    yield _compiled(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), EMAIL
    for host in sorted(identity.hosts, key=len, reverse=True):
        yield _compiled(_host(host)), HOST
    yield _compiled(rf"({_FOLDERS_OF_HOMES})(?:{_COMPONENT_WITH_SPACES}|{_COMPONENT})"), rf"\1{USER}"
    for name in sorted(identity.users, key=len, reverse=True):  # a full name before its parts
        yield _compiled(_user(name)), USER
    yield _compiled(r"\bS-1-5-21-[\d-]+"), USER


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _folder(folder: str) -> re.Pattern[str] | None:
    r"""Return the pattern of a folder, also with other separators, escaped, in another case, and as ``/c/Users``."""
    if not re.match(r"[\\/]|[A-Za-z]:[\\/]", folder):
        return None
    drive, parts = "", [part for part in re.split(r"[\\/]+", folder) if part]
    if parts and re.fullmatch(r"[A-Za-z]:", parts[0]):
        letter = parts.pop(0)[0]
        drive = rf"(?:{letter}:|(?:/mnt)?/{letter})"
    if not parts:
        return None
    inner = _SEPARATOR.join("|".join(spellings(part)).join(("(?:", ")")) for part in parts)
    # The whole folder only, not the beginning or a part of another path.
    return _compiled(rf"(?:\\+\?\\+|(?<![\w.~/\\-])){drive}{_SEPARATOR}{inner}(?![\w.-]*\w)")


def _host(name: str) -> str:
    exact = re.escape(name)
    if _is_word(name) or "." in name:
        return rf"(?<![\w.-]){exact}(?:\.[\w-]+)*(?![\w-])"
    return rf"(?:(?<=//)|(?<=\\\\)|(?<=@)){exact}(?:\.[\w-]+)*(?![\w.-])"


def _user(name: str) -> str:
    any_spelling = f"(?:{'|'.join(spellings(name))})"
    # A component of a path, but not a folder of the root: /dev is no home folder.
    component = rf"(?<=[^\s'\"(=,][\\/]){any_spelling}(?![\w.-]*\w)"
    if _is_word(name):
        return rf"{component}|(?<!\w){any_spelling}(?!\w)"
    return "|".join([component, *(rf"(?<=\b{label}){any_spelling}(?!\w)" for label in _LABELS)])


def _is_word(name: str) -> bool:
    """Return whether a name is no ordinary word, so that it is replaced wherever it stands."""
    return len(name) >= _SHORTEST_WORD and name.casefold() not in _ORDINARY


def _replaced_urls(text: str) -> str:
    """Replace the servers of URLs, apart from public ones."""

    def shown(found: re.Match[str]) -> str:
        return found[0] if is_public(found[2]) else f"{found[1]}{HOST}"

    return re.sub(_URL, shown, text, flags=re.IGNORECASE)
