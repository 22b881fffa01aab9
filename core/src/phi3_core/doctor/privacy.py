"""What a report must not tell: who uses the machine, what it is called, and the secrets in its environment."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from attrs import frozen

from phi3_core import paths
from phi3_core.errors import Phi3Error
from phi3_core.user_folders import home_folder

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL|PRIVATE_KEY|(?:^|_)(?:KEY|PAT|PWD)$", re.IGNORECASE)
_NO_SECRET_NAME = re.compile(r"^limits\.|_(?:PATH|FILE|DIR|LIMIT|TOKENS)$|^(?:OLD)?PWD$", re.IGNORECASE)
_SHORTEST_SECRET = 6
SET = "(set)"
"""What is shown in place of a secret setting."""
_SERVER_NAME = re.compile(r"(?:PROXY|ENDPOINT|URL|HOST|SERVER|INDEX)$", re.IGNORECASE)
_USER_NAMES = ("USER", "USERNAME", "LOGNAME", "LNAME", "SUDO_USER")
_HOST_NAMES = ("COMPUTERNAME", "HOSTNAME", "HOST", "USERDOMAIN", "USERDNSDOMAIN")
_SCHEME = r"^(?:[a-z][a-z0-9+.-]*://)?"
# A password may have any characters, as curl and Python's clients take it: the last @ before the server ends it.
_CREDENTIALS = re.compile(rf"{_SCHEME}(.+)@(?=[^@/?#]+(?:[/?#][^@]*)?$)", re.IGNORECASE)
_URL_HOST = re.compile(rf"{_SCHEME}(\[[^\]]+\]|[^/:?#\s]+)", re.IGNORECASE)
PUBLIC_SERVERS = (
    *("huggingface.co", "hf.co", "github.com", "pypi.org", "pythonhosted.org", "pytorch.org", "python.org"),
    *("intel.com", "microsoft.com", "nvidia.com", "amd.com", "aka.ms", "docker.com", "readthedocs.io", "localhost"),
    *("127.0.0.1", "[::1]"),
)
"""Servers whose names say nothing about the user."""


@frozen(kw_only=True)
class Identity:
    """What is known about the user and the machine, and is not to be told."""

    home: str = ""
    """The home folder."""
    store: str = ""
    users: tuple[str, ...] = ()
    """The names of the user: of the account, and in full."""
    hosts: tuple[str, ...] = ()
    """The names of the machine, its domain, and the servers that the environment names."""
    secrets: tuple[str, ...] = ()
    """Values of environment variables that are named like secrets, and what URLs have before their ``@``."""


def this_identity(environment: Mapping[str, str] = os.environ) -> Identity:
    """Return the identity of the user and the machine."""
    home, store = _home(), ""
    try:
        store = str(paths.home())
    except Phi3Error:  # the configuration cannot be read, or there is no home folder
        store = environment.get("PHI3_HOME", "")
    users = [*_account(), *(environment.get(name, "") for name in _USER_NAMES), re.split(r"[\\/]", home)[-1]]
    users += (part for name in tuple(users) for part in name.split())
    hosts = [_host(), *(environment.get(name, "") for name in _HOST_NAMES)]
    hosts += (server(text) for name, text in environment.items() if _SERVER_NAME.search(name))
    return Identity(
        home=home,
        store=store,
        users=_longest_first(users),
        hosts=_longest_first(name for name in hosts if not is_public(name)),
        secrets=_longest_first(_secrets(environment)),
    )


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the values that are named like secrets, and the users and passwords of URLs and addresses."""
    for name, text in environment.items():
        if is_secret(name) and len(text) >= _SHORTEST_SECRET:
            yield text
        found = _CREDENTIALS.match(text.strip()) if "://" in text or _SERVER_NAME.search(name) else None
        if found is not None:
            # Of the whole, since a part may be an ordinary word; a password that is long enough by itself, too.
            yield from (f"{found[1]}@", f"{unquote(found[1])}@")
            password = found[1].partition(":")[2]
            yield from (each for each in (password, unquote(password)) if len(each) >= _SHORTEST_SECRET)


def is_secret(name: str) -> bool:
    """Return whether a setting is named like a secret."""
    return _SECRET_NAME.search(name) is not None and _NO_SECRET_NAME.search(name) is None


def without_secrets(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings without the values of those that are named like secrets."""
    return {name: SET if text and is_secret(name) else text for name, text in settings.items()}


def is_public(host: str) -> bool:
    """Return whether a server's name says nothing about the user."""
    name = host.casefold()
    return any(name == each or name.endswith(f".{each}") for each in PUBLIC_SERVERS)


def server(url: str) -> str:
    """Return the server of a URL or address; empty if there is none."""
    url = _without_credentials(url.strip())
    found = _URL_HOST.match(url)
    return found[1] if found and re.search(r"\w", found[1]) and ("://" in url or "." in found[1]) else ""


def _without_credentials(url: str) -> str:
    found = _CREDENTIALS.match(url)
    return url if found is None else url[: found.start(1)] + url[found.end() :]


def quotations(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as it stands in URLs, JSON and Python's messages."""
    bare = secret.removesuffix("@")
    mark = secret[len(bare) :]
    quoted = _quoted(bare)
    in_urls = (quoted, quoted.replace("%2F", "/"), quoted.replace("%3A", ":"), quoted.replace("%20", "+"))
    escaped = (json.dumps(bare)[1:-1], repr(bare)[1:-1], ascii(bare)[1:-1], bare.replace("\\", "\\\\"))
    yield from dict.fromkeys(f"{form}{mark}" for form in (bare, *in_urls, *escaped))


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def spellings(name: str) -> Iterator[str]:
    """Yield regular expressions for a name: as it is, as in URLs and in Python, and short as in DOS."""
    accents = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    escaped = [ascii(name)[1:-1], json.dumps(name)[1:-1], *map(_quoted, accents)] if not name.isascii() else []
    for form in dict.fromkeys([name, *accents, *escaped]):
        yield r"(?:[ +_]|%20)".join(map(re.escape, form.split(" ")))
    plain = re.sub(r"[^A-Za-z0-9_-]", "", name)
    if plain and (len(name) > 8 or " " in name):
        yield re.escape(plain[:6]) + r"~\d"


def _home() -> str:
    return str(home_folder() or "")


def _host() -> str:
    try:
        return socket.gethostname()
    except (OSError, UnicodeError):
        return ""


def _account() -> Iterator[str]:
    """Yield the names of the account that runs this process."""
    with contextlib.suppress(KeyError, OSError, ImportError):  # a user without a name, as in some containers
        yield getpass.getuser()
    if sys.platform != "win32":
        import pwd

        try:
            account = pwd.getpwuid(os.getuid())
        except KeyError:
            return
        yield account.pw_name
        yield account.pw_gecos.partition(",")[0]


def _longest_first(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in names if name.strip()}, key=lambda name: (-len(name), name)))
