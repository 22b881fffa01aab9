"""Tools for authors of backends, besides the contract (``hookspecs``, ``values``, ``errors``).

==============================  ======================================================================================
Task                            Names
==============================  ======================================================================================
detecting devices               :func:`missing_requirement`, :func:`installed_versions`, :func:`this_machine`,
                                :func:`driver_fingerprint`; on Windows :class:`DeviceManager`,
                                :func:`system_library`, :class:`Guid`
options of the engine           :func:`check_options`
numbers of threads              :func:`core_threads`; :func:`thread_limit`, of containers
reading model files             :func:`read_limits`, :func:`read_config`, :func:`read_json`, :func:`read_header`,
                                :func:`describe_gguf`, :func:`is_gguf`
reading original weights        :class:`Checkpoint`, :class:`Architecture`, :class:`Layer`, :class:`Weight` and
                                :class:`Rotary`
quantizing                      :func:`check_extra`, :func:`check_recipe`, :func:`check_resources`,
                                :class:`RoundingSettings`, :class:`RoundingPlan`, :class:`Scheme`,
                                :func:`round_blocks`, :func:`pack_nibbles`, :func:`to_float16`,
                                :class:`SafetensorsWriter`, :func:`save_weights`
running external exporters      :class:`Toolchain`, :func:`prepare_toolchain`, :func:`copy_sidecars`
running child processes         :func:`module_command`
caching compiled models         :func:`compiled_folder`, :func:`artifact_folder`, :func:`replace_path`,
                                :func:`write_problem`
generating                      :class:`Decoder` with a :class:`Forward`, :func:`chunks`; :class:`Answer`,
                                :func:`answer_capabilities`, :class:`Sampler`
converting values from JSON     :func:`values_of`
==============================  ======================================================================================

Names are imported on first use. Reading original weights, quantizing and generating need the extra
``phi3-core[quantization]``. Before 1.0, names may change in a minor version; the changelog lists such changes.
"""

from __future__ import annotations

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from .cgroups import core_threads as core_threads
    from .cgroups import thread_limit as thread_limit
    from .checkpoint.architecture import Architecture as Architecture
    from .checkpoint.checkpoint import Checkpoint as Checkpoint
    from .checkpoint.checkpoint import Layer as Layer
    from .checkpoint.gguf import GgufDescription as GgufDescription
    from .checkpoint.gguf import describe_gguf as describe_gguf
    from .checkpoint.gguf_parts import is_gguf as is_gguf
    from .checkpoint.limits import PositionLimits as PositionLimits
    from .checkpoint.limits import read_config as read_config
    from .checkpoint.limits import read_limits as read_limits
    from .checkpoint.rope import Rotary as Rotary
    from .checkpoint.safetensors import Floats as Floats
    from .checkpoint.safetensors import Weight as Weight
    from .checkpoint.safetensors import to_float16 as to_float16
    from .checkpoint.safetensors_header import read_header as read_header
    from .checkpoint.safetensors_writer import SafetensorsWriter as SafetensorsWriter
    from .checkpoint.safetensors_writer import TensorSpec as TensorSpec
    from .decoding.answer import Answer as Answer
    from .decoding.answer import answer_capabilities as answer_capabilities
    from .decoding.chunks import Chunks as Chunks
    from .decoding.chunks import chunks as chunks
    from .decoding.decoder import Decoder as Decoder
    from .decoding.decoder import Forward as Forward
    from .disk import write_problem as write_problem
    from .distributions import installed_versions as installed_versions
    from .files import replace_path as replace_path
    from .interpreter import module_command as module_command
    from .machine import driver_fingerprint as driver_fingerprint
    from .machine import this_machine as this_machine
    from .options import check_options as check_options
    from .paths import read_json as read_json
    from .quantization.bit_allocation import RoundingPlan as RoundingPlan
    from .quantization.bit_allocation import make_plan as make_plan
    from .quantization.bit_allocation import read_calibration as read_calibration
    from .quantization.bit_allocation import stored_counter as stored_counter
    from .quantization.recipes import RoundingSettings as RoundingSettings
    from .quantization.recipes import check_even_inputs as check_even_inputs
    from .quantization.recipes import check_extra as check_extra
    from .quantization.recipes import check_recipe as check_recipe
    from .quantization.recipes import fitting_group_size as fitting_group_size
    from .quantization.recipes import own_group_size as own_group_size
    from .quantization.recipes import wants_reference as wants_reference
    from .quantization.resources import check_resources as check_resources
    from .quantization.resources import check_resources_for_reference as check_resources_for_reference
    from .quantization.resources import rounding_memory as rounding_memory
    from .quantization.rounding import Rounded as Rounded
    from .quantization.rounding import check_group_size as check_group_size
    from .quantization.rounding import pack_nibbles as pack_nibbles
    from .quantization.rounding import round_blocks as round_blocks
    from .quantization.saving import save_weights as save_weights
    from .quantization.scales import Scheme as Scheme
    from .requirements import missing_requirement as missing_requirement
    from .sampling import Sampler as Sampler
    from .store.derived import artifact_folder as artifact_folder
    from .store.derived import compiled_folder as compiled_folder
    from .store.sidecars import copy_sidecars as copy_sidecars
    from .toolchains.toolchain import Toolchain as Toolchain
    from .toolchains.toolchain import prepare_toolchain as prepare_toolchain
    from .units import format_bytes as format_bytes
    from .values import no_progress as no_progress
    from .values import values_of as values_of
    from .windows import COMPUTE_ACCELERATOR as COMPUTE_ACCELERATOR
    from .windows import DEVICE_DESCRIPTION as DEVICE_DESCRIPTION
    from .windows import DRIVER_VERSION as DRIVER_VERSION
    from .windows import FILTER_CLASS as FILTER_CLASS
    from .windows import FILTER_ENUMERATOR as FILTER_ENUMERATOR
    from .windows import DeviceManager as DeviceManager
    from .windows import Guid as Guid
    from .windows import guid as guid
    from .windows import property_key as property_key
    from .windows import system_library as system_library

_HOMES = {
    "cgroups": (
        "core_threads",
        "thread_limit",
    ),
    "checkpoint.architecture": ("Architecture",),
    "checkpoint.checkpoint": (
        "Checkpoint",
        "Layer",
    ),
    "checkpoint.gguf": (
        "GgufDescription",
        "describe_gguf",
    ),
    "checkpoint.gguf_parts": ("is_gguf",),
    "checkpoint.limits": (
        "PositionLimits",
        "read_config",
        "read_limits",
    ),
    "checkpoint.rope": ("Rotary",),
    "checkpoint.safetensors": (
        "Floats",
        "Weight",
        "to_float16",
    ),
    "checkpoint.safetensors_header": ("read_header",),
    "checkpoint.safetensors_writer": (
        "SafetensorsWriter",
        "TensorSpec",
    ),
    "decoding.answer": (
        "Answer",
        "answer_capabilities",
    ),
    "decoding.chunks": (
        "Chunks",
        "chunks",
    ),
    "decoding.decoder": (
        "Decoder",
        "Forward",
    ),
    "distributions": ("installed_versions",),
    "disk": ("write_problem",),
    "files": ("replace_path",),
    "interpreter": ("module_command",),
    "machine": (
        "driver_fingerprint",
        "this_machine",
    ),
    "options": ("check_options",),
    "paths": ("read_json",),
    "quantization.bit_allocation": (
        "RoundingPlan",
        "make_plan",
        "read_calibration",
        "stored_counter",
    ),
    "quantization.recipes": (
        "RoundingSettings",
        "check_even_inputs",
        "check_extra",
        "check_recipe",
        "fitting_group_size",
        "own_group_size",
        "wants_reference",
    ),
    "quantization.resources": (
        "check_resources",
        "check_resources_for_reference",
        "rounding_memory",
    ),
    "quantization.rounding": (
        "Rounded",
        "check_group_size",
        "pack_nibbles",
        "round_blocks",
    ),
    "quantization.saving": ("save_weights",),
    "quantization.scales": ("Scheme",),
    "requirements": ("missing_requirement",),
    "sampling": ("Sampler",),
    "store.derived": (
        "artifact_folder",
        "compiled_folder",
    ),
    "store.sidecars": ("copy_sidecars",),
    "toolchains.toolchain": (
        "Toolchain",
        "prepare_toolchain",
    ),
    "units": ("format_bytes",),
    "values": (
        "no_progress",
        "values_of",
    ),
    "windows": (
        "COMPUTE_ACCELERATOR",
        "DEVICE_DESCRIPTION",
        "DRIVER_VERSION",
        "FILTER_CLASS",
        "FILTER_ENUMERATOR",
        "DeviceManager",
        "Guid",
        "guid",
        "property_key",
        "system_library",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - strings, from the table above


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{module}", __package__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
