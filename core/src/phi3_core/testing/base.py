"""What all parts of the kit share: the settings of a subclass, fixtures, skips and quirks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import ClassVar, NoReturn

import pytest

from phi3_core.errors import Phi3Error
from phi3_core.plugin import Backend, installed
from phi3_core.values import PRECISIONS, Artifact, Offer, Refusal

from . import answers, models, plugin
from .engines import LoadedEngine
from .subject import Subject

_SUBJECTS = pytest.StashKey[dict[type, Subject]]()


class ContractBase:
    """The settings of a subclass, and the fixtures of the tests."""

    backend: ClassVar[str] = ""
    """The name of the backend."""
    device: ClassVar[str | None] = None
    """The id of the device; by default the first that core may choose."""
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    """The precisions to test, of those that the device offers."""
    options: ClassVar[Mapping[str, str]] = {}
    """Options for every engine."""
    quirks: ClassVar[Mapping[str, str]] = {}
    """What the backend does differently: the name of a test, and the reason.

    Such a test is replaced by the subclass, or has to fail."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test for each precision, and for each shape of the model."""
        plugin.register(metafunc.config)
        for name, values in (("precision", self.precisions), ("shape", tuple(models.SHAPES))):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    @pytest.fixture(autouse=True)
    def _quirk(self, request: pytest.FixtureRequest) -> None:
        node = request.node
        name = next((each for each in (node.name, node.originalname) if each in self.quirks), None)
        if name is not None:
            node.user_properties.append((plugin.QUIRK, self.quirks[name]))
            if not hasattr(getattr(type(self), node.originalname), plugin.REPLACED):
                node.add_marker(pytest.mark.xfail(reason=f"quirk: {self.quirks[name]}", strict=True))

    @pytest.fixture
    def subject(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _quirk: None
    ) -> Subject:
        """The backend, and what the tests of this class have made with it."""
        subjects = request.config.stash.setdefault(_SUBJECTS, {})
        kind = type(self)
        if kind not in subjects:
            folder = tmp_path_factory.mktemp(f"kit-{self.backend}")
            subjects[kind] = Subject(find(self.backend), folder, self.options)
            node = request.node.getparent(pytest.Class)
            assert node is not None

            def end() -> None:
                subjects.pop(kind).close()

            node.addfinalizer(end)
        return subjects[kind]

    @pytest.fixture
    def hooks(self, subject: Subject) -> tuple[str, ...]:
        """The hooks that the plugin implements."""
        try:
            return subject.hooks
        except Phi3Error as error:
            blocked("importing the plugin", error)

    @pytest.fixture
    def offer(self, subject: Subject, hooks: tuple[str, ...], request: pytest.FixtureRequest) -> Offer:
        """The device to test. Without it the test is skipped, for the reason that ``detect`` gave."""
        try:
            offer = subject.offer(self.device)
        except Phi3Error as error:
            blocked("detect", error)
        if offer is None:
            reasons = [answer.reason for answer in subject.answers if isinstance(answer, Refusal)]
            offered = [str(answer.device) for answer in subject.answers if isinstance(answer, Offer)]
            wanted = f"{self.backend}:{self.device}" if self.device else f"a device of {self.backend}"
            why = "; ".join(reasons) or f"detect offers {', '.join(offered) or 'nothing'}"
            untested(request, self.backend, f"{wanted} is not usable here: {why}")
        return offer

    @pytest.fixture
    def offered(self, offer: Offer, precision: str) -> str:
        """One precision. The test is skipped if the device does not offer it."""
        if precision not in offer.precisions:
            pytest.skip(f"{offer.device} does not offer {precision}")
        return precision

    @pytest.fixture
    def best(self, offer: Offer, request: pytest.FixtureRequest) -> str:
        """The precision for tests that are not about precisions: the one that is closest to the original."""
        found = [each for each in PRECISIONS if each in offer.precisions and each in self.precisions]
        if not found:
            untested(request, self.backend, f"{offer.device} offers none of {', '.join(self.precisions)}")
        return found[0]

    @pytest.fixture
    def quantizes(self, subject: Subject, offer: Offer, request: pytest.FixtureRequest) -> None:
        """Tests of ``quantize`` ask for this, and all others with an engine."""
        if "quantize" not in subject.hooks:
            untested(
                request,
                self.backend,
                f"{self.backend} does not implement quantize, which makes the models of the tests",
            )

    @pytest.fixture
    def artifact(self, subject: Subject, offer: Offer, best: str, quantizes: None) -> Artifact:
        """A quantized model of :data:`models.PLAIN`. Not to be changed."""
        return usable_artifact(subject, models.PLAIN, offer, best)

    @pytest.fixture
    def made(self, subject: Subject, offer: Offer, offered: str, quantizes: None) -> Artifact:
        """The same in one precision. Not to be changed."""
        return usable_artifact(subject, models.PLAIN, offer, offered)

    @pytest.fixture
    def engine(self, subject: Subject, artifact: Artifact, offer: Offer, best: str) -> LoadedEngine:
        """An engine with that model."""
        return usable_engine(subject, models.PLAIN, offer, best)

    @pytest.fixture
    def generates(self, subject: Subject, offer: Offer, best: str, engine: LoadedEngine) -> None:
        """Tests that need an answer of the right length ask for this."""
        with needed("generate"):
            answers.answer(subject, offer, best)

    @pytest.fixture
    def greedy(self, subject: Subject, offer: Offer, best: str, generates: None) -> list[int]:
        """The greedy answer to :data:`answers.PROMPT`, which is the same every time."""
        with needed("generate"):
            return answers.repeated(subject, offer, best)

    @pytest.fixture
    def long_engine(self, subject: Subject, greedy: list[int], offer: Offer, best: str) -> LoadedEngine:
        """An engine with a model of a long context."""
        usable_artifact(subject, "long", offer, best)
        return usable_engine(subject, "long", offer, best)

    def needs(self, subject: Subject, hook: str) -> None:
        """Skip a test of an optional hook that the plugin does not implement."""
        if hook not in subject.hooks:
            pytest.skip(f"{self.backend} does not implement {hook}")


def find(name: str) -> Backend:
    """Return an installed backend. Otherwise the test fails."""
    backends, broken = installed()
    found = next((backend for backend in backends if backend.name == name), None)
    if found is None:
        reasons = [each.error for each in broken if each.plugin == name]
        names = ", ".join(backend.name for backend in backends) or "none"
        pytest.fail(f"no backend {name!r}: {reasons[0] if reasons else f'installed: {names}'}", pytrace=False)
    return found


def untested(request: pytest.FixtureRequest, backend: str, why: str) -> NoReturn:
    """Skip a test because no engine can be loaded. Those of a backend that is required fail."""
    required = request.config.getoption(plugin.REQUIRED, default=None) or ()
    if backend in required:
        pytest.fail(f"{why} (--require-backend={backend})", pytrace=False)
    request.node.user_properties.append((plugin.UNAVAILABLE, why))
    pytest.skip(why)


def blocked(what: str, error: BaseException) -> NoReturn:
    """Fail in a fixture: something that has a test of its own does not work, so this test cannot be run."""
    pytest.fail(f"{plugin.BLOCKED} {what} failed: {error}", pytrace=False)


@contextlib.contextmanager
def needed(what: str) -> Iterator[None]:
    """Fail as :func:`blocked` if what a fixture does, which has a test of its own, does not work."""
    try:
        yield
    except (Phi3Error, AssertionError) as error:
        blocked(what, error)


def usable_artifact(subject: Subject, name: str, offer: Offer, precision: str) -> Artifact:
    """Return a quantized model, for a fixture."""
    try:
        return subject.artifact(name, offer, precision)
    except Phi3Error as error:
        blocked("quantize", error)


def usable_engine(
    subject: Subject, name: str, offer: Offer, precision: str, purpose: str = "conversation"
) -> LoadedEngine:
    """Return an engine with a quantized model, for a fixture."""
    try:
        return subject.engine(name, offer, precision, purpose)
    except Phi3Error as error:
        blocked("load", error)
