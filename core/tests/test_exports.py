"""What is public: every name that is listed is there, and type checkers see the same names."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import phi3_core
import pytest
from phi3_core import backend

FRONTS = {"phi3_core": phi3_core, "phi3_core.backend": backend}


def for_type_checkers(module) -> dict[str, str]:
    """The names that a module imports for type checkers, and the modules they are from."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom) and node.level]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("front", FRONTS)
def test_every_name_is_there(front):
    for name in FRONTS[front].__all__:
        assert getattr(FRONTS[front], name) is not None


@pytest.mark.parametrize("front", FRONTS)
def test_type_checkers_see_the_same_names_of_the_same_modules(front):
    module = FRONTS[front]
    assert for_type_checkers(module) == module._HOME_OF
    for name, home in module._HOME_OF.items():
        assert getattr(module, name) is getattr(importlib.import_module(f"phi3_core.{home}"), name)


@pytest.mark.parametrize("front", FRONTS)
def test_what_is_not_there_is_an_attribute_error(front):
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        FRONTS[front].nonsense  # noqa: B018


def test_the_public_names_are_these():
    """Part of the contract: names may be added here, never removed or renamed."""
    assert set(phi3_core.__all__) == {
        *("CONTRACT", "__version__", "hookimpl", "load", "survey", "Message", "Model", "Reply", "Stream", "Survey"),
        *("Artifact", "Device", "Engine", "Finding", "GenerationRequest", "Machine", "Offer", "Progress", "Published"),
        *("Recipe", "Refusal", "Sampling", "Source", "freeze_support"),
        *("BackendDiedError", "BackendError", "DiskFullError", "ModelError", "NoArtifactError", "NoDeviceError"),
        *("NotOnHubError", "Phi3Error", "PromptTooLongError", "QueueFullError", "StoreError", "TooLargeError"),
        *("UsageError", "WrongAnswersError"),
    }
