"""The page of the guide with the table of faults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from . import Fault
from .table import FAULTS

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "faults.md"
HEAD = """\
# Faults of backends

What a backend can do wrong, and what you see of it. Each row is a test: a backend with the fault, `acme`, is installed
beside a healthy one, `steady`, which runs the same model, and a question is asked: from Python, with `phi3 run`, and of
`phi3 serve` over HTTP.

- **If core chose the device**, the answer is the one that the healthy device gives alone, token by token, wherever the
  fault strikes. One line on stderr says what failed and what core goes on with. In Python it is a warning of the logger
  `phi3_core`.
- **If you named the device**, as `--device acme:CPU`, no other replaces it. One that fails in the middle of an answer
  [is started again](devices.md#failures), with a line that ends in "; starting acme:CPU again". The last column has
  what comes of it: the whole answer, or an exit code and one line, which is the same one up to "; continuing" unless
  another is given. In Python it is raised; a server that runs ends the answer with an error, `engine_failed`, and logs
  the line.
- No process is left, and the store has no half-written file.

"Lost" are the seconds that `phi3 run` took longer than with the healthy device alone, the fastest of three runs each,
on two processors that had other work, too. Time limits are 2 to 4 seconds in the tests, and longer
[by default](configuration.md#settings); a device that has answered before [counts as hung](devices.md#failures) by how
long it took then. A backend that cannot be asked for its devices is asked again after 10 minutes, and costs nothing
until then. "…" stands for what differs.
"""
COLUMNS = ("fault", "on stderr, if core chose the device", "lost", "if you named it")
TAIL = """\
Both signals are also sent from outside to a worker in which OpenVINO generates.

The tests write this page:

```console
python -m pytest core/tests/faults --run-slow --write-faults
```
"""
_ROW = re.compile(r"\| (?P<what>.+?) \| .* \| (?P<lost>\d+\.\d) s[^|]* \| [^|]+ \|$")


def page(lost_s: Mapping[str, float]) -> str:
    """Return the page.

    Args:
        lost_s: the seconds that each fault has cost, by its name.
    """
    parts = [HEAD]
    for where, faults in FAULTS.items():
        rows = [COLUMNS, ("---",) * len(COLUMNS)]
        rows += [_row(what, fault, lost_s[f"{where} {what}"]) for what, fault in faults.items()]
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
        parts.append(f"## {where}\n\n{table}")
    return "\n".join([*parts, TAIL])


def lost_s(written: str) -> dict[str, float]:
    """Return the seconds that a page has, by the names of the faults."""
    found, where = {}, ""
    for line in written.splitlines():
        if line.startswith("## "):
            where = line.removeprefix("## ")
        elif row := _ROW.match(line):
            found[f"{where} {row['what']}"] = float(row["lost"])
    return found


def _row(what: str, fault: Fault, lost: float) -> tuple[str, ...]:
    waited = f", with a limit of {fault.waits_s:g} s" if fault.waits_s else ""
    named = str(fault.code) if fault.code else "the answer"
    if fault.restarts:
        named += ", after it was started again " + ("once" if fault.restarts == 1 else f"{fault.restarts} times")
    if fault.named:
        named += f": `{fault.named}`"
    said = f"`{fault.said}`" if fault.said else "nothing"
    return what, said, f"{max(lost, 0.0):.1f} s{waited}", named
