"""A plugin-based runtime for the Phi-3 family of language models.

::

    import phi3_core as phi3

    with phi3.load("sample") as model:
        print(model.generate("What is the capital of France?").text)

Public names are imported on first use, so importing the package is cheap.
"""

from __future__ import annotations

__version__ = "0.2.0"

TYPE_CHECKING = False  # start-up: type checkers know the name, and importing typing takes long
if TYPE_CHECKING:
    from typing import Any

    from .api import load as load
    from .errors import BackendDiedError as BackendDiedError
    from .errors import BackendError as BackendError
    from .errors import DiskFullError as DiskFullError
    from .errors import ModelError as ModelError
    from .errors import NoArtifactError as NoArtifactError
    from .errors import NoDeviceError as NoDeviceError
    from .errors import NotOnHubError as NotOnHubError
    from .errors import Phi3Error as Phi3Error
    from .errors import PromptTooLongError as PromptTooLongError
    from .errors import QueueFullError as QueueFullError
    from .errors import StoreError as StoreError
    from .errors import TooLargeError as TooLargeError
    from .errors import UsageError as UsageError
    from .errors import WrongAnswersError as WrongAnswersError
    from .hookspecs import CONTRACT as CONTRACT
    from .hookspecs import hookimpl as hookimpl
    from .interpreter import freeze_support as freeze_support
    from .model import Model as Model
    from .replies import Message as Message
    from .replies import Reply as Reply
    from .replies import Stream as Stream
    from .surveys import Survey as Survey
    from .surveys import survey as survey
    from .values import Artifact as Artifact
    from .values import Device as Device
    from .values import Engine as Engine
    from .values import Finding as Finding
    from .values import GenerationRequest as GenerationRequest
    from .values import Machine as Machine
    from .values import Offer as Offer
    from .values import Progress as Progress
    from .values import Published as Published
    from .values import Recipe as Recipe
    from .values import Refusal as Refusal
    from .values import Sampling as Sampling
    from .values import Source as Source

_HOMES = {
    "replies": ("Message", "Reply", "Stream"),
    "api": ("load",),
    "errors": (
        *("BackendDiedError", "BackendError", "DiskFullError", "ModelError", "NoArtifactError", "NoDeviceError"),
        *("NotOnHubError", "Phi3Error", "PromptTooLongError", "QueueFullError", "StoreError", "TooLargeError"),
        *("UsageError", "WrongAnswersError"),
    ),
    "hookspecs": ("CONTRACT", "hookimpl"),
    "interpreter": ("freeze_support",),
    "model": ("Model",),
    "surveys": ("Survey", "survey"),
    "values": (
        *("Artifact", "Device", "Engine", "Finding", "GenerationRequest", "Machine", "Offer", "Progress"),
        *("Published", "Recipe", "Refusal", "Sampling", "Source"),
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - strings, from the table above


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
