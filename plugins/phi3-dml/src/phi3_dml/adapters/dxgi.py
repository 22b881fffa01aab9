"""Graphics adapters in the order of ONNX Runtime GenAI, and whether they support Direct3D 12.

GenAI 0.13.1 creates its factory with ``CreateDXGIFactory`` (not ``…1``), lists adapters with ``EnumAdapters1``, skips
software adapters, creates a Direct3D 12 device of feature level 11.0 on each of the others, and uses the one with index
``device_index`` among them (``src/dml/dml_helpers.cpp``). This module makes the same calls. Definitions are from
``dxgi.h``, ``dxgi1_4.h`` and ``d3d12.h``.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from typing import Any

from phi3_core.backend import Guid, guid

from .com import ComError, Interface, Luid, Method, check
from .records import Adapter, Trial, version

IID_FACTORY4 = guid("1bc6ea02-ef36-464f-bf0c-21ca39e5168a")
IID_DXGI_DEVICE = guid("54ec77fa-1377-44e6-8c32-88fd5f44c84c")
IID_D3D12_DEVICE = guid("189819f1-1db6-4b57-be54-1821339b85f7")
FEATURE_LEVEL_11_0 = 0xB000
NOT_FOUND = 0x887A0002

ENUM_ADAPTERS1 = Method(12, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p))
CHECK_INTERFACE_SUPPORT = Method(9, ctypes.POINTER(Guid), ctypes.POINTER(ctypes.c_int64))


class Description(ctypes.Structure):
    """``DXGI_ADAPTER_DESC1``."""

    _fields_ = (
        ("description", ctypes.c_uint16 * 128),
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("subsystem", ctypes.c_uint32),
        ("revision", ctypes.c_uint32),
        ("dedicated_video_memory", ctypes.c_size_t),
        ("dedicated_system_memory", ctypes.c_size_t),
        ("shared_system_memory", ctypes.c_size_t),
        ("luid", Luid),
        ("flags", ctypes.c_uint32),
    )


GET_DESC1 = Method(10, ctypes.POINTER(Description))


def adapters(dxgi: Any) -> Iterator[tuple[Adapter, Interface]]:
    """Yield all adapters with their interfaces, each valid until the next step.

    Args:
        dxgi: the loaded ``dxgi.dll``.

    Raises:
        ComError: DXGI failed.
    """
    pointer = ctypes.c_void_p()
    create = dxgi.CreateDXGIFactory
    create.restype = ctypes.c_uint32
    create.argtypes = (ctypes.POINTER(Guid), ctypes.POINTER(ctypes.c_void_p))
    check("CreateDXGIFactory", create(ctypes.byref(IID_FACTORY4), ctypes.byref(pointer)))
    with Interface(pointer) as factory:
        for position in itertools.count():
            found = ctypes.c_void_p()
            code = factory.call(ENUM_ADAPTERS1, position, ctypes.byref(found))
            if code == NOT_FOUND:
                return
            check("EnumAdapters1", code)
            with Interface(found) as interface:
                yield _describe(position, interface), interface


def _describe(position: int, interface: Interface) -> Adapter:
    found = Description()
    check("GetDesc1", interface.call(GET_DESC1, ctypes.byref(found)))
    name = bytes(found.description).decode("utf-16-le", "replace").partition("\0")[0]
    return Adapter(
        position=position,
        name=" ".join(name.split()) or f"adapter {found.vendor:04x}:{found.device:04x}",
        vendor=found.vendor,
        device=found.device,
        luid=str(found.luid),
        flags=found.flags,
        dedicated_bytes=found.dedicated_video_memory,
        shared_bytes=found.shared_system_memory,
    )


def attempt(dxgi: Any, d3d12: Any, position: int) -> Trial:
    """Return whether an adapter supports Direct3D 12, without creating a device. This runs code of the driver.

    Args:
        dxgi: the loaded ``dxgi.dll``.
        d3d12: the loaded ``d3d12.dll``.
        position: the adapter's index in ``EnumAdapters1``.

    Raises:
        ComError: there is no such adapter, or DXGI failed.
    """
    for adapter, interface in adapters(dxgi):
        if adapter.position == position:
            return Trial(position=position, driver=_driver(interface), code=_supports(d3d12, interface))
    raise ComError("EnumAdapters1", NOT_FOUND)


def _driver(interface: Interface) -> str:
    packed = ctypes.c_int64()
    code = interface.call(CHECK_INTERFACE_SUPPORT, ctypes.byref(IID_DXGI_DEVICE), ctypes.byref(packed))
    return "" if code >= 0x80000000 else version(packed.value & 0xFFFFFFFFFFFFFFFF)


def _supports(d3d12: Any, interface: Interface) -> int:
    create = d3d12.D3D12CreateDevice
    create.restype = ctypes.c_uint32
    create.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(Guid), ctypes.c_void_p)
    # With a null pointer for the device, the result is whether it could be created.
    code: int = create(interface.pointer, FEATURE_LEVEL_11_0, ctypes.byref(IID_D3D12_DEVICE), None)
    return code
