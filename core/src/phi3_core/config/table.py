"""The settings: their names in the configuration file, their environment variables, and their defaults.

``phi3 config``, the flags of the command line and the page of the guide take them from here.
"""

from __future__ import annotations

from typing import NamedTuple

from .kinds import FLAG, MODEL, PATH, SECONDS, TEXT, TEXTS, Anything, Choice, Kind, Number

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


class Setting(NamedTuple):
    """One setting."""

    key: str
    """Its name in the file, with its table; empty if only the environment has it."""
    variable: str
    """Its environment variable."""
    kind: Kind
    default: Any
    """The value without any setting."""
    meaning: str
    commands_only: bool = True
    """Whether it is a preference of who types commands, which programs that use the library are not given."""
    default_words: str = ""
    """The default, where the value does not say it."""

    @property
    def name(self) -> str:
        """Its name in the file, or its variable."""
        return self.key or self.variable

    @property
    def default_text(self) -> str:
        """The default, for people."""
        return self.default_words or shown(self.default)


def shown(value: Any) -> str:
    """Return a value as it is written in commands; a list is separated by spaces."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(map(repr, value)) if isinstance(value, tuple) else str(value)


TIME_LIMITS_S = {"detect": 20.0, "diagnose": 30.0, "load": 900.0, "prefill": 600.0, "token": 120.0}
"""Time limits of backend operations in seconds, which ``PHI3_<NAME>_LIMIT`` and ``[limits]`` override."""
_LIMITED = {
    "detect": "seconds that a backend may take to look for devices",
    "diagnose": "seconds that a backend may take for `phi3 doctor`",
    "load": "seconds that loading a model may take",
    "prefill": "seconds up to the first token of an answer",
    "token": "seconds between two tokens",
}
_MODEL = "phi-3-mini-4k-instruct"

SETTINGS = (
    Setting("model", "PHI3_MODEL", MODEL, _MODEL, "the model, as `--model` takes it"),
    Setting("device", "PHI3_DEVICE", TEXT, "auto", "where it runs, as `--device` takes it"),
    Setting(
        "precision",
        "PHI3_PRECISION",
        Choice("fp16", "int8", "int4"),
        None,
        "the precision of the weights",
        default_words="the best that is available",
    ),
    Setting("policy", "PHI3_POLICY", Choice("auto", "performance", "efficiency"), "auto", "how devices are ranked"),
    Setting(
        "max_new_tokens",
        "PHI3_MAX_NEW_TOKENS",
        Number("a whole number from 1 on", least=1, whole=True),
        1024,
        "at most this many tokens",
    ),
    Setting("temperature", "PHI3_TEMPERATURE", Number("a number from 0 on", least=0), 0.0, "0 is greedy"),
    Setting(
        "top_k",
        "PHI3_TOP_K",
        Number("a whole number from 0 on", least=0, whole=True),
        0,
        "keep the K likeliest tokens",
        default_words="all",
    ),
    Setting(
        "top_p",
        "PHI3_TOP_P",
        Number("a number over 0, at most 1", least=0, most=1, over=True),
        1.0,
        "keep the likeliest tokens that together reach this probability",
    ),
    Setting(
        "repetition_penalty",
        "PHI3_REPETITION_PENALTY",
        Number("a number over 0", least=0, over=True),
        1.0,
        "over 1 discourages repeating",
    ),
    Setting(
        "seed",
        "PHI3_SEED",
        Number("a whole number from 0 to 4294967295", least=0, most=2**32 - 1, whole=True),
        None,
        "makes sampling repeatable",
        default_words="random",
    ),
    Setting("lookup", "PHI3_LOOKUP", Choice("auto", "on", "off"), "auto", "prompt lookup"),
    Setting("system", "PHI3_SYSTEM", TEXT, None, "the system message"),
    Setting("stop", "PHI3_STOP", TEXTS, None, "end the answer before one of these texts; a variable holds one"),
    Setting("stats", "PHI3_STATS", FLAG, False, "print the figures of an answer"),
    Setting("drop_oldest", "PHI3_DROP_OLDEST", FLAG, False, "`phi3 chat` forgets what no longer fits"),
    Setting("quiet", "PHI3_QUIET", FLAG, False, "print to stderr only what went wrong"),
    Setting("offline", "PHI3_OFFLINE", FLAG, False, "use only what is on this machine", commands_only=False),
    Setting(
        "home",
        "PHI3_HOME",
        PATH,
        None,
        "the folder of the store",
        commands_only=False,
        default_words="`phi3` in the platform's cache folder",
    ),
    *(
        Setting(f"limits.{name}", f"PHI3_{name.upper()}_LIMIT", SECONDS, seconds, _LIMITED[name], commands_only=False)
        for name, seconds in TIME_LIMITS_S.items()
    ),
    Setting(
        "show_output",
        "PHI3_SHOW_OUTPUT",
        Anything(),
        False,
        "show what backends print and the tracebacks of their errors",
        commands_only=False,
    ),
    Setting(
        "",
        "PHI3_DEBUG",
        TEXT,
        None,
        "`BACKEND:HOOK` lets a debugger attach before the hook is called",
        commands_only=False,
    ),
    Setting(
        "",
        "PHI3_CONFIG",
        PATH,
        None,
        "the configuration file; `none` reads none",
        commands_only=False,
        default_words="`config.toml` in the platform's folder for configuration",
    ),
)
"""What phi3 reads, in the order in which it is shown."""

BY_KEY = {setting.key: setting for setting in SETTINGS if setting.key}
BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
FREE_TABLES = ("aliases", "options")
"""Tables whose keys are the user's own: names of models, and of backends with their engines' options."""

OTHERS = {
    "HF_TOKEN": "the token of an account on the hub, for repositories that need one",
    "HF_ENDPOINT": "a mirror of the hub",
    "HF_HUB_OFFLINE": "`1` asks nothing of the hub, as `--offline` does",
    "HF_HUB_CACHE": "where other programs keep what they downloaded; it is read, never written",
    "HF_HOME": "the folder that has this cache in `hub`",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds without an answer before a request is repeated",
    "HTTPS_PROXY": "a proxy, as for other programs",
    "NO_PROXY": "hosts that are asked without it",
}
"""Variables that the hub's client reads, in phi3 as in other programs. They are not phi3's to configure."""
SECRET = frozenset({"HF_TOKEN", "HTTPS_PROXY"})
"""Variables whose values are not shown."""
PRIVATE = frozenset({"system", "stop"})
"""Settings whose values say more about the user than about the machine; reports leave them out."""
