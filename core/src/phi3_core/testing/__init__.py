"""Test utilities for authors of backends: the conformance kit, and small checkpoints with random weights.

::

    from phi3_core.testing import BackendContract

    class TestAcme(BackendContract):
        backend = "acme"

The kit needs the extra ``phi3-core[testing]``. It is imported on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from .contract import BackendContract as BackendContract

__all__ = ["BackendContract"]


def __getattr__(name: str) -> type[BackendContract]:
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # start-up: benchmarks use only the checkpoints, and need no pytest
    import pytest

    from . import rewritten

    pytest.register_assert_rewrite(*rewritten.MODULES)
    from .contract import BackendContract

    return BackendContract
