"""False alarms: check the engine of ``sample`` with known answers again and again, and count how often it is refused.

Each check asks the loaded engine anew, as the first start on a device does; an engine keeps what it has read, so each
of several is checked several times. The seconds are those of one check.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from unittest import mock

import phi3_core as phi3
from attrs import evolve
from phi3_core.checking.check import Check
from phi3_core.errors import WrongAnswersError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", nargs="?", default="openvino:CPU", help="such as openvino:CPU, dml:cpu or npu:CPU")
    parser.add_argument("precision", nargs="?", default="int4", choices=["int4", "int8", "fp16"])
    parser.add_argument("--engines", type=int, default=10, help="how often the model is loaded")
    parser.add_argument("--times", type=int, default=20, help="checks of each")
    parser.add_argument("--model", default="sample")
    given = parser.parse_args()
    seconds: list[float] = []
    compared = alarms = 0
    run = Check.run

    def repeat(check: Check) -> bool:
        nonlocal compared, alarms
        for _ in range(given.times):
            started = time.perf_counter()
            try:
                compared += run(evolve(check, anew=True))
            except WrongAnswersError as error:
                alarms += 1
                print(f"alarm: {error.message}", file=sys.stderr)
            seconds.append(time.perf_counter() - started)
        return bool(compared)

    with mock.patch.object(Check, "run", repeat):
        for _ in range(given.engines):
            phi3.load(given.model, device=given.device, precision=given.precision).close()
    print(
        f"{given.device} {given.precision}: {alarms} alarms in {len(seconds)} checks, {compared} of which compared "
        f"answers; {statistics.median(seconds):.2f} s each ({min(seconds):.2f} to {max(seconds):.2f})"
    )


if __name__ == "__main__":
    main()
