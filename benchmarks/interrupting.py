"""How long Ctrl-C takes to end ``phi3 run``, while it loads, prefills and decodes. POSIX only."""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import time

import _common


def interrupt(command: list[str], wait_s: float, *, first_byte: bool) -> float:
    """Start a command, interrupt it, and return how long it took to end."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        if first_byte:
            process.stdout.read(1)
        time.sleep(wait_s)
        if process.poll() is not None:
            raise RuntimeError("it ended before it could be interrupted")
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        code = process.wait()
        took = time.perf_counter() - started
    if code != 130:
        raise RuntimeError(f"exit code {code}, not 130")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    _common.sample()
    ask = _common.phi3_command("run", "-m", "sample", "-d", "openvino:CPU", "-q", "--max-new-tokens", "2000")
    cases = {
        "load": ([*ask, "Tell me a story."], 0.7, False),
        "prefill": ([*ask, "word " * 6000], 3.5, False),
        "decode": ([*ask, "Tell me a long story about the sea."], 0.5, True),
    }
    for name, (command, wait_s, first_byte) in cases.items():
        times = [interrupt(command, wait_s, first_byte=first_byte) for _ in range(given.rounds)]
        print(f"Ctrl-C during {name}: {statistics.median(times):.3f} s, at most {max(times):.3f} s; bound: 0.5 s")


if __name__ == "__main__":
    main()
