"""The first content of a configuration file: all settings, as comments."""

from __future__ import annotations

import json

from .table import SETTINGS

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from .table import Setting

_START = "# Settings of phi3, in TOML (https://toml.io). phi3 config shows what holds, and what else there is."
_END = """
# [aliases]
# mini = "owner/name@revision"

# [options.openvino]
# PERFORMANCE_HINT = "LATENCY"
"""


def text() -> str:
    """Return the content."""
    keys = [setting for setting in SETTINGS if setting.key]
    lines = [_START, "", *(_line(setting) for setting in keys if "." not in setting.key), "", "# [limits]"]
    lines += [_line(setting) for setting in keys if setting.key.startswith("limits.")]
    return "\n".join(lines) + "\n" + _END


def _line(setting: Setting) -> str:
    key = setting.key.rpartition(".")[2]
    # Numbers, words and booleans are written in TOML as in JSON.
    value = "" if setting.default is None else f" {json.dumps(setting.default)}"
    return f"# {key} ={value}  # {setting.meaning.replace('`', '')}"
