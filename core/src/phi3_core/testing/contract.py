"""The conformance kit: what every backend does, as a class of tests that a plugin's tests subclass."""

from __future__ import annotations

from phi3_core.values import PRECISIONS

from .base import ContractBase
from .capabilities import Capabilities
from .detecting import Detecting
from .diagnosing import Diagnosing
from .generating import Generating
from .importing import Importing
from .lengths import Lengths
from .lifetime import Lifetime
from .loading import Loading
from .logits import Logits
from .many import Many
from .memory import Memory
from .plugin import REPLACED
from .published import PublishedWeights
from .quantizing import Quantizing
from .recognizing import Recognizing
from .refusing import Refusing
from .sampling import SamplingSettings
from .whole_way import WholeWay

_SETTINGS = frozenset(("backend", "device", "precisions", "options", "quirks"))


class BackendContract(  # pytest begins with the tests of the last base
    WholeWay,
    Diagnosing,
    Memory,
    Lifetime,
    Logits,
    Many,
    Capabilities,
    SamplingSettings,
    Lengths,
    Generating,
    Loading,
    PublishedWeights,
    Recognizing,
    Refusing,
    Quantizing,
    Detecting,
    Importing,
    ContractBase,
):
    """Tests of one backend, on one device, with tiny models in core's worker processes.

    A subclass names the backend::

        class TestAcme(BackendContract):
            backend = "acme"

    It may also set ``device``, ``precisions``, ``options`` and ``quirks``. ``quirks`` maps the name of a test to the
    reason why the backend does not pass it: the test then has to fail, unless the subclass replaces it by one of its
    own. A test that is replaced without a reason is refused, and so is a quirk of a test that does not exist.
    """

    __test__ = False

    def __init_subclass__(cls) -> None:
        """Check the settings of a subclass.

        Raises:
            TypeError: a setting has a wrong value, or something is replaced without a quirk.
        """
        super().__init_subclass__()
        if "__test__" not in vars(cls):
            cls.__test__ = True
        _check_precisions(cls)
        for name, reason in cls.quirks.items():
            if not hasattr(BackendContract, name.partition("[")[0]) or not name.startswith("test_"):
                raise TypeError(f"{cls.__name__} has a quirk of {name}, and the contract has no such test")
            if not isinstance(reason, str) or not reason.strip():
                raise TypeError(f"{cls.__name__} has a quirk of {name} without a reason")
        for name, value in vars(cls).items():
            if name.startswith("__") or name in _SETTINGS or not hasattr(BackendContract, name):
                continue
            if not name.startswith("test_") or name not in cls.quirks:
                raise TypeError(
                    f"{cls.__name__} replaces {name} of the contract: give the reason in its quirks"
                    if name.startswith("test_")
                    else f"{cls.__name__} replaces {name}, which the tests of the contract need"
                )
            if not callable(value):
                raise TypeError(f"{cls.__name__} replaces {name} by something that is no test")
            setattr(value, REPLACED, True)


def _check_precisions(kind: type[BackendContract]) -> None:
    if isinstance(kind.precisions, str) or not kind.precisions:
        raise TypeError(f"{kind.__name__}.precisions is a tuple of precisions, not {kind.precisions!r}")
    if unknown := [each for each in kind.precisions if each not in PRECISIONS]:
        raise TypeError(f"{kind.__name__}.precisions has {unknown[0]!r}; known are {', '.join(PRECISIONS)}")
