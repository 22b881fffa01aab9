"""The table of faults: a row is a fault. ``docs/guide/faults.md`` is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import Fault, broken, fails


def hook(name: str, arguments: str, *body: str) -> str:
    """Return the source of a hook, with a line for each of ``body``."""
    return "\n".join(["@hookimpl", f"def {name}({arguments}):", *(f"    {line}" for line in body), ""])


def detect(*body: str) -> str:
    return hook("detect", "machine", "import os, time", *body)


def quantize(*body: str) -> str:
    return hook("quantize", "source, output", "import os", "(output / 'half.bin').write_bytes(bytes(100_000))", *body)


def load(*body: str) -> str:
    return hook("load", "artifact, device, options", "import os, time", *body)


def generate(*body: str, after: int = 0) -> str:
    """Return a ``generate`` that does something after so many tokens of the healthy answer, if that goes on then."""
    return hook(
        *("generate", "engine, request", "import itertools, os, signal, time", "ids = healthy(request)"),
        *(f"yield from itertools.islice(ids, {after})", "token = next(ids, None)", "if token is not None:"),
        *(f"    {line}" for line in (*body, "yield token")),
        "yield from ids",
    )


ABORT, KILL, STOP = "os.abort()", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), signal.SIGSTOP)"
HANG, SPIN = "time.sleep(600)", "sum(range(10**13))  # holds the interpreter's lock"
TOKEN_LIMIT: dict[str, Any] = {"limits": {"PHI3_TOKEN_LIMIT": "2"}, "waits_s": 2.0}
LATE = "it did not answer 'generate' within 2 s and was stopped"
STARTS = (
    "import subprocess, sys",
    "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])",
    "open(__file__ + '.pid', 'a').write(f'{started.pid} ')",
)
DIED_IN_LOAD = "its process died during load (SIGABRT)"
CHANGING = hook(
    *("detect", "machine", "from pathlib import Path", "asked = Path(__file__).with_suffix('.asked')"),
    *("count = len(asked.read_text()) if asked.exists() else 0", "asked.write_text('x' * (count + 1))"),
    "device = Device(backend='acme', id=f'CPU.{count}' if count else 'CPU', kind='cpu', name='Acme')",
    "return [Offer(device=device, precisions=['fp16'])]",
) + load("assert device == detect(None)[0].device, f'there is no device {device.id}'", "return Engine()")

FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "When it is imported": {
        "raises": Fault(changes="raise ImportError('no such DLL')", **broken("ImportError: no such DLL", quick=True)),
        "exits": Fault(changes="raise SystemExit(3)", **broken("SystemExit: it tried to exit with 3")),
        "ends its process": Fault(
            changes="import os; os._exit(7)", **broken("its process died during open (exit code 7)", quick=True)
        ),
        "a hook takes an argument that there is not": Fault(
            changes=hook("load", "artefact, device", "return Engine()"),
            **broken("load of phi3_acme takes the unknown argument 'artefact'; did you mean artifact?"),
        ),
        "a hook has a name that there is not": Fault(
            changes=hook("generates", "engine, request", "return healthy(request)"),
            **broken("phi3_acme has the unknown hook 'generates'; did you mean generate?"),
        ),
    },
    "`detect`": {
        "raises": Fault(changes=detect("raise OSError('the driver is gone')"), **broken("OSError: the driver is gone")),
        "aborts": Fault(changes=detect(ABORT), **broken("its process died during detect (SIGABRT)")),
        "hangs": Fault(
            changes=detect(HANG),
            **broken(
                "it did not answer 'detect' within 4 s and was stopped; it is asked again after 10 minutes, or by: "
                "phi3 devices --refresh",
                limits={"PHI3_DETECT_LIMIT": "4"},
                waits_s=4.0,
            ),
        ),
        "returns the wrong type": Fault(
            changes=detect("return 'GPU'"),
            **broken("detect returned a str ('GPU'), not a sequence of Offer and Refusal"),
        ),
        "offers other devices each time": Fault(
            changes=CHANGING,
            **fails("AssertionError: there is no device CPU"),
            quick=True,
        ),
    },
    "`quantize`": {
        "raises": Fault(changes=quantize("raise ValueError('no such layer')"), **fails("ValueError: no such layer")),
        "is killed": Fault(changes=quantize(KILL), **fails("its process died during quantize (SIGKILL)", quick=True)),
        "fills the disk": Fault(
            changes=quantize("raise OSError(28, 'No space left on device')"),
            **fails(
                "no space is left on the disk of …",
                named="acme:CPU: no space is left on the disk of … (free some space, or set PHI3_HOME to a folder on "
                "another disk)",
                code=4,
                quick=True,
            ),
        ),
        "returns the wrong type": Fault(
            changes=quantize("return 'done'"),
            **fails("quantize of phi3-acme 1.0 returned a str ('done'), not Mapping or NoneType"),
        ),
    },
    "`load`": {
        "raises": Fault(changes=load("raise RuntimeError('no such kernel')"), **fails("RuntimeError: no such kernel")),
        "aborts": Fault(changes=load(ABORT), **fails(DIED_IN_LOAD, quick=True)),
        "hangs": Fault(
            changes=load(HANG),
            **fails("it did not answer 'load' within 3 s and was stopped"),
            limits={"PHI3_LOAD_LIMIT": "3"},
            waits_s=3.0,
        ),
        "asks for more memory than there is": Fault(
            changes=load("bytearray(2**62)"),
            **fails(
                "MemoryError: there is not enough memory",
                named="acme:CPU: MemoryError: there is not enough memory (choose a smaller model, or --precision int4)",
            ),
        ),
        "takes more memory than there is": Fault(
            changes=load(KILL + "  # as the system does"), **fails("its process died during load (SIGKILL)")
        ),
        "returns the wrong type": Fault(
            changes=load("return 3"), **fails("load of phi3-acme 1.0 returned an int (3), not Engine")
        ),
    },
    "`generate`": {
        "raises": Fault(changes=generate("raise OSError('device lost')"), **fails("OSError: device lost", restarts=1)),
        "raises after the third token": Fault(
            changes=generate("raise OSError('device lost')", after=3), **fails("OSError: device lost", restarts=3)
        ),
        "aborts at the first token": Fault(
            changes=generate(ABORT), **fails("its process died during generate (SIGABRT)", restarts=1)
        ),
        "aborts at the third token": Fault(
            changes=generate(ABORT, after=2), **fails("its process died during generate (SIGABRT)", restarts=3)
        ),
        "aborts at the hundredth token": Fault(
            changes=generate(ABORT, after=99),
            **fails("its process died during generate (SIGABRT)", code=0, restarts=1, quick=True),
        ),
        "aborts after the last token": Fault(
            changes=hook("generate", "engine, request", "import os", "yield from healthy(request)", ABORT),
            said="acme:CPU: its process died during generate (SIGABRT)",
            code=0,
            max_new_tokens=20,
            device="acme:CPU",  # nothing is missing
            quick=True,
        ),
        "never begins": Fault(
            changes=generate(HANG),
            **fails(LATE, restarts=1),
            limits={"PHI3_PREFILL_LIMIT": "2"},
            waits_s=2.0,
        ),
        "stalls": Fault(changes=generate(HANG, after=3), **fails(LATE, restarts=3), **TOKEN_LIMIT),
        "stalls in native code": Fault(changes=generate(SPIN, after=3), **fails(LATE, restarts=3), **TOKEN_LIMIT),
        "yields an id outside of the vocabulary": Fault(
            changes=generate("yield 99_999", after=3),
            **fails(
                "generate of phi3-acme 1.0 yielded the id 99999, which is not in the vocabulary of 0 to 32063",
                restarts=3,
                quick=True,
            ),
        ),
        "yields a negative id": Fault(
            changes=generate("yield -1", after=3),
            **fails(
                "generate of phi3-acme 1.0 yielded the id -1, which is not in the vocabulary of 0 to 32063", restarts=3
            ),
        ),
        "yields text": Fault(
            changes=generate("yield 'a'", after=3),
            **fails("generate of phi3-acme 1.0 yielded 'a', a str, and not the integer of a token", restarts=3),
        ),
        "returns the wrong type": Fault(
            changes=hook("generate", "engine, request", "return [1, 2]"),
            **fails("generate of phi3-acme 1.0 returned a list ([1, 2]), not Iterator", restarts=1),
        ),
        "never stops": Fault(
            changes=hook(
                *("generate", "engine, request", "ids = list(request.prompt_ids)", "while True:"),
                *("    ids.append(next_id(ids))", "    yield ids[-1]"),
            ),
            said="acme:CPU: generate of phi3-acme 1.0 yielded more than the 20 ids asked for",
            code=0,
            max_new_tokens=20,
            device="acme:CPU",  # nothing is missing
        ),
        "passes a stop token": Fault(
            changes=hook(
                *("generate", "engine, request", "yield from healthy(request)", "yield request.stop_ids[0]"),
                *("yield 325",),
            ),
            said="acme:CPU: generate of phi3-acme 1.0 yielded the stop id … instead of ending before it",
            code=0,
            device="acme:CPU",  # as above
            quick=True,
        ),
        "writes noise to stdout": Fault(
            changes=hook(
                *("generate", "engine, request", "import os", "for token in healthy(request):"),
                *("    print('noise', flush=True)", '    os.write(1, b\'{"of": 1, "id": 325}\\n\')', "    yield token"),
            ),
            device="acme:CPU",
            code=0,
            quick=True,
        ),
    },
    "`close`": {
        "raises": Fault(
            changes="def close(self):\n    raise OSError('busy')\nEngine.close = close\n",
            device="acme:CPU",
            code=0,
        ),
        "hangs": Fault(
            changes=f"import time\ndef close(self):\n    {HANG}\nEngine.close = close\n",
            device="acme:CPU",
            code=0,
            waits_s=2.0,
        ),
    },
    "Its process": {
        "starts another one, and aborts": Fault(changes=load(*STARTS, ABORT), **fails(DIED_IN_LOAD)),
        "is killed": Fault(
            changes=generate(KILL, after=3), **fails("its process died during generate (SIGKILL)", restarts=3)
        ),
        "is stopped": Fault(changes=generate(STOP, after=3), **fails(LATE, restarts=3), **TOKEN_LIMIT, needs="signals"),
    },
}
ROWS = {f"{where} {what}": fault for where, faults in FAULTS.items() for what, fault in faults.items()}
