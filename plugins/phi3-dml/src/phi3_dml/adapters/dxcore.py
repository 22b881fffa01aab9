"""Adapters as listed by DXCore, which unlike DXGI includes NPUs and reports whether a GPU is integrated.

Definitions are from ``dxcore_interface.h`` of the DirectX headers. DXCore requires Windows 10 version 2004.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from phi3_core.backend import Guid, guid

from .com import Interface, Luid, Method, check
from .records import Core, version

IID_FACTORY = guid("78ee5945-c36e-4b13-a669-005dd11c0f06")
IID_LIST = guid("526c7776-40e9-459b-b711-f32ad76dfc28")
IID_ADAPTER = guid("f0db4c7f-fe5a-42a2-bd62-f2a6cf6fc83e")
GRAPHICS = guid("0c9ece4d-2f6e-4f01-8c96-e89e331b47b1")
CORE_COMPUTE = guid("248e2800-a793-4724-abaa-23a6de1be090")
GENERIC_ML = guid("b71b0d41-1088-422f-a27c-0250b7d3a988")
NPU = guid("d46140c4-add7-451b-9e56-06fe8c3b58ed")

LUID, DRIVER_VERSION, DESCRIPTION, HARDWARE_ID = 0, 1, 2, 3
IS_HARDWARE, IS_INTEGRATED = 11, 12

_OUT = ctypes.POINTER(ctypes.c_void_p)
CREATE_ADAPTER_LIST = Method(3, ctypes.c_uint32, ctypes.POINTER(Guid), ctypes.POINTER(Guid), _OUT)
GET_ADAPTER = Method(3, ctypes.c_uint32, ctypes.POINTER(Guid), _OUT)
GET_ADAPTER_COUNT = Method(4)
IS_ATTRIBUTE_SUPPORTED = Method(4, ctypes.POINTER(Guid), result=ctypes.c_bool)
IS_PROPERTY_SUPPORTED = Method(5, ctypes.c_uint32, result=ctypes.c_bool)
GET_PROPERTY = Method(6, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_void_p)
GET_PROPERTY_SIZE = Method(7, ctypes.c_uint32, ctypes.POINTER(ctypes.c_size_t))


class HardwareId(ctypes.Structure):
    """``DXCoreHardwareID``."""

    _fields_ = (
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("subsystem", ctypes.c_uint32),
        ("revision", ctypes.c_uint32),
    )


def read(dxcore: Any) -> list[Core]:
    """Return all adapters for graphics or compute.

    Args:
        dxcore: the loaded ``dxcore.dll``.

    Raises:
        ComError: DXCore failed.
    """
    create = dxcore.DXCoreCreateAdapterFactory
    create.restype = ctypes.c_uint32
    create.argtypes = (ctypes.POINTER(Guid), _OUT)
    pointer = ctypes.c_void_p()
    check("DXCoreCreateAdapterFactory", create(ctypes.byref(IID_FACTORY), ctypes.byref(pointer)))
    found: dict[str, Core] = {}
    with Interface(pointer) as factory:
        # A list contains the adapters that have all given attributes, so each attribute needs a separate list.
        for attribute in (GRAPHICS, CORE_COMPUTE, GENERIC_ML):
            for core in _list(factory, attribute):
                found.setdefault(core.luid, core)
    return list(found.values())


def _list(factory: Interface, attribute: Guid) -> Iterator[Core]:
    pointer = ctypes.c_void_p()
    code = factory.call(CREATE_ADAPTER_LIST, 1, ctypes.byref(attribute), ctypes.byref(IID_LIST), ctypes.byref(pointer))
    check("CreateAdapterList", code)
    with Interface(pointer) as adapters:
        for index in range(adapters.call(GET_ADAPTER_COUNT)):
            found = ctypes.c_void_p()
            check("GetAdapter", adapters.call(GET_ADAPTER, index, ctypes.byref(IID_ADAPTER), ctypes.byref(found)))
            with Interface(found) as adapter:
                yield _describe(adapter)


def _describe(adapter: Interface) -> Core:
    luid, identity = Luid(), HardwareId()
    packed, hardware, integrated = ctypes.c_uint64(), ctypes.c_bool(), ctypes.c_bool()
    _property(adapter, LUID, luid)
    _property(adapter, HARDWARE_ID, identity)
    _property(adapter, DRIVER_VERSION, packed)
    _property(adapter, IS_HARDWARE, hardware)
    told = _property(adapter, IS_INTEGRATED, integrated)
    return Core(
        luid=str(luid),
        name=_name(adapter),
        vendor=identity.vendor,
        hardware=hardware.value,
        integrated=integrated.value if told else None,
        driver=version(packed.value),
        graphics=adapter.call(IS_ATTRIBUTE_SUPPORTED, ctypes.byref(GRAPHICS)),
        npu=adapter.call(IS_ATTRIBUTE_SUPPORTED, ctypes.byref(NPU)),
    )


def _property(adapter: Interface, number: int, into: Any) -> bool:
    """Read a property into ``into`` and return whether the driver supports it."""
    if not adapter.call(IS_PROPERTY_SUPPORTED, number):
        return False
    code: int = adapter.call(GET_PROPERTY, number, ctypes.sizeof(into), ctypes.byref(into))
    return code < 0x80000000


def _name(adapter: Interface) -> str:
    size = ctypes.c_size_t()
    if adapter.call(GET_PROPERTY_SIZE, DESCRIPTION, ctypes.byref(size)) >= 0x80000000 or not size.value:
        return ""
    buffer = ctypes.create_string_buffer(size.value)
    return " ".join(buffer.value.decode("utf-8", "replace").split()) if _property(adapter, DESCRIPTION, buffer) else ""
