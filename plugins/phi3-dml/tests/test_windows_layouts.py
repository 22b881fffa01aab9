"""The structures, slots, constants and identifiers of ``com``, ``dxgi`` and ``dxcore`` against the Windows headers.

The values were extracted from the headers of two Debian packages, which ``recordings/windows_layouts.json`` names, and
are compared always. Where the compilers and the headers are installed (``apt-get install gcc-mingw-w64-x86-64
directx-headers-dev g++``), they are extracted anew and compared too; ``python test_windows_layouts.py`` writes them.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import struct
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from phi3_core.backend import Guid
from phi3_dml import diagnosis
from phi3_dml.adapters import com, dxcore, dxgi, records

RECORDED = Path(__file__).with_name("recordings") / "windows_layouts.json"
MINGW, MINGW_PACKAGE = "x86_64-w64-mingw32-gcc", "mingw-w64-x86-64-dev"
MINGW_HEADERS = Path("/usr/share/mingw-w64/include")
DIRECTX_PACKAGE = "directx-headers-dev"
DIRECTX_HEADERS = Path("/usr/include/directx")


def slot(interface, method):
    return f"offsetof({interface}Vtbl, {method}) / sizeof(void *)"


def field(name, ours):
    return f"offsetof(DXGI_ADAPTER_DESC1, {name})", getattr(dxgi.Description, ours).offset


# What C says of dxgi.h, dxgi1_4.h and d3d12.h, and what we say.
VALUES = {
    "sizeof(void *)": ctypes.sizeof(ctypes.c_void_p),
    "sizeof(HRESULT)": ctypes.sizeof(ctypes.c_uint32),
    "sizeof(UINT)": ctypes.sizeof(ctypes.c_uint32),
    "sizeof(SIZE_T)": ctypes.sizeof(ctypes.c_size_t),
    "sizeof(D3D_FEATURE_LEVEL)": ctypes.sizeof(ctypes.c_uint32),
    "sizeof(GUID)": ctypes.sizeof(Guid),
    "offsetof(GUID, Data4)": Guid.data4.offset,
    "sizeof(LUID)": ctypes.sizeof(com.Luid),
    "offsetof(LUID, HighPart)": com.Luid.high.offset,
    "sizeof(DXGI_ADAPTER_DESC1)": ctypes.sizeof(dxgi.Description),
    **dict(
        [
            field("Description", "description"),
            field("VendorId", "vendor"),
            field("DeviceId", "device"),
            field("DedicatedVideoMemory", "dedicated_video_memory"),
            field("SharedSystemMemory", "shared_system_memory"),
            field("AdapterLuid", "luid"),
            field("Flags", "flags"),
        ]
    ),
    slot("IDXGIFactory4", "Release"): com.RELEASE,
    slot("IDXGIFactory4", "EnumAdapters1"): dxgi.ENUM_ADAPTERS1.slot,
    slot("IDXGIAdapter1", "CheckInterfaceSupport"): dxgi.CHECK_INTERFACE_SUPPORT.slot,
    slot("IDXGIAdapter1", "GetDesc1"): dxgi.GET_DESC1.slot,
    "D3D_FEATURE_LEVEL_11_0": dxgi.FEATURE_LEVEL_11_0,
    "DXGI_ADAPTER_FLAG_REMOTE": records.REMOTE,
    "DXGI_ADAPTER_FLAG_SOFTWARE": records.SOFTWARE,
    "offsetof(VS_FIXEDFILEINFO, dwFileVersionMS)": diagnosis.VERSION_OFFSET,
    "sizeof(VS_FIXEDFILEINFO) - offsetof(VS_FIXEDFILEINFO, dwFileVersionLS)": 52 - 12,
    "(int)VS_FFI_SIGNATURE": struct.unpack("<i", diagnosis.SIGNATURE)[0],
    "DXGI_ERROR_NOT_FOUND": dxgi.NOT_FOUND - 2**32,
}
# What C++ says of dxcore_interface.h, which has no C form: a pointer to a virtual method is its table offset + 1.
METHODS = {
    "IDXCoreAdapterFactory::CreateAdapterList": (
        "HRESULT",
        "uint32_t, const GUID *, REFIID, void **",
        dxcore.CREATE_ADAPTER_LIST,
    ),
    "IDXCoreAdapterList::GetAdapter": ("HRESULT", "uint32_t, REFIID, void **", dxcore.GET_ADAPTER),
    "IDXCoreAdapterList::GetAdapterCount": ("uint32_t", "", dxcore.GET_ADAPTER_COUNT),
    "IDXCoreAdapter::IsAttributeSupported": ("bool", "REFGUID", dxcore.IS_ATTRIBUTE_SUPPORTED),
    "IDXCoreAdapter::IsPropertySupported": ("bool", "DXCoreAdapterProperty", dxcore.IS_PROPERTY_SUPPORTED),
    "IDXCoreAdapter::GetProperty": ("HRESULT", "DXCoreAdapterProperty, size_t, void *", dxcore.GET_PROPERTY),
    "IDXCoreAdapter::GetPropertySize": ("HRESULT", "DXCoreAdapterProperty, size_t *", dxcore.GET_PROPERTY_SIZE),
}
PROPERTIES = {
    "InstanceLuid": dxcore.LUID,
    "DriverVersion": dxcore.DRIVER_VERSION,
    "DriverDescription": dxcore.DESCRIPTION,
    "HardwareID": dxcore.HARDWARE_ID,
    "IsHardware": dxcore.IS_HARDWARE,
    "IsIntegrated": dxcore.IS_INTEGRATED,
}
CORE_VALUES = {
    **{f"DXCoreAdapterProperty::{name}": value for name, value in PROPERTIES.items()},
    "sizeof(DXCoreHardwareID)": ctypes.sizeof(dxcore.HardwareId),
    "offsetof(DXCoreHardwareID, deviceID)": dxcore.HardwareId.device.offset,
    "sizeof(bool)": ctypes.sizeof(ctypes.c_bool),
    **{name: method.slot for name, (_, _, method) in METHODS.items()},
}
IDENTIFIERS = {
    "IID_IDXGIFactory4": dxgi.IID_FACTORY4,
    "IID_IDXGIDevice": dxgi.IID_DXGI_DEVICE,
    "IID_ID3D12Device": dxgi.IID_D3D12_DEVICE,
    "IID_IDXCoreAdapterFactory": dxcore.IID_FACTORY,
    "IID_IDXCoreAdapterList": dxcore.IID_LIST,
    "IID_IDXCoreAdapter": dxcore.IID_ADAPTER,
    "DXCORE_ADAPTER_ATTRIBUTE_D3D12_GRAPHICS": dxcore.GRAPHICS,
    "DXCORE_ADAPTER_ATTRIBUTE_D3D12_CORE_COMPUTE": dxcore.CORE_COMPUTE,
}
# Newer than the packages' headers: as in DirectX-Headers since 1.614 and in onnxruntime's device_discovery.cc.
NEWER = {
    "DXCORE_ADAPTER_ATTRIBUTE_D3D12_GENERIC_ML": (dxcore.GENERIC_ML, "b71b0d41-1088-422f-a27c-0250b7d3a988"),
    "DXCORE_HARDWARE_TYPE_ATTRIBUTE_NPU": (dxcore.NPU, "d46140c4-add7-451b-9e56-06fe8c3b58ed"),
}


def extract():
    """What the installed headers say."""
    headers = [MINGW_HEADERS / name for name in ("dxgi.h", "dxgi1_4.h", "d3d12.h")]
    headers.append(DIRECTX_HEADERS / "dxcore_interface.h")
    text = "\n".join(header.read_text(encoding="utf-8", errors="replace") for header in headers)
    identifiers = {}
    for name in IDENTIFIERS:
        numbers = set(re.findall(rf"DEFINE_GUID\({name}, *([^)]*)\)", text))
        (found,) = {tuple(int(number, 0) for number in one.split(",")) for one in numbers}
        low, mid, high, clock_high, clock_low, *node = found
        fields = (low, mid, high, clock_high, clock_low, int.from_bytes(bytes(node), "big"))
        identifiers[name] = str(uuid.UUID(fields=fields))
    return {
        "packages": {package: _package_version(package) for package in (MINGW_PACKAGE, DIRECTX_PACKAGE)},
        "values": _evaluate_c(),
        "core values": _evaluate_cpp(),
        "identifiers": identifiers,
    }


def _package_version(package):
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout


def _run(command, source, text):
    """Compile a program; ``-o -`` in the command gives its assembly, anything else is run."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, source)
        file.write_text("\n".join(text), encoding="ascii")
        output = subprocess.run([*command, str(file)], check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout
        program = Path(folder, "a.out")
        return (
            subprocess.run([program], check=True, capture_output=True, text=True).stdout if program.exists() else output
        )


def _parsed(output, names):
    found = {int(index): int(value) for index, value in re.findall(r"=> (\d+) (-?\d+)", output)}
    return {name: found[index] for index, name in enumerate(names)}


def _evaluate_c():
    """Nothing is run: the values are read from the assembly."""
    text = ["#define COBJMACROS", "#include <stddef.h>", "#include <windows.h>", "#include <dxgi1_4.h>"]
    text += ["#include <d3d12.h>", "void f(void) {"]
    text += [f'asm volatile("=> {i} %c0" :: "i"((long long)({name})));' for i, name in enumerate(VALUES)]
    return _parsed(_run([MINGW, "-S", "-o", "-"], "values.c", [*text, "}"]), VALUES)


def _evaluate_cpp():
    """A program of this machine: the order of a table is the order of declaration in both compilers."""
    text = ["#include <cstddef>", "#include <cstdio>", "#include <cstring>", "#include <wsl/winadapter.h>"]
    text += ["#include <directx/dxcore_interface.h>", "template <class M> long long slot(M method) {"]
    text += [
        "  long long offset; std::memcpy(&offset, &method, sizeof offset); return (offset - 1) / sizeof(void *); }"
    ]
    text += ["int main() {"]
    for index, name in enumerate(CORE_VALUES):
        expression = f"(long long)({name})"
        if name in METHODS:
            result, arguments, _ = METHODS[name]
            owner = name.partition("::")[0]
            expression = f"slot(static_cast<{result} ({owner}::*)({arguments})>(&{name}))"
        text.append(f'std::printf("=> {index} %lld\\n", {expression});')
    command = ["g++", "-I", "/usr/include/wsl/stubs", "-w"]
    return _parsed(_run(command, "values.cpp", [*text, "}"]), CORE_VALUES)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("expression", VALUES)
def test_layouts_slots_and_constants_are_those_of_the_headers(recorded, expression):
    assert VALUES[expression] == recorded["values"][expression]


@pytest.mark.parametrize("expression", CORE_VALUES)
def test_what_is_used_of_dxcore_is_as_in_its_header(recorded, expression):
    assert CORE_VALUES[expression] == recorded["core values"][expression]


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_identifiers_are_those_of_the_headers(recorded, name):
    assert str(uuid.UUID(bytes_le=bytes(IDENTIFIERS[name]))) == recorded["identifiers"][name]


@pytest.mark.parametrize("name", NEWER)
def test_identifiers_that_the_packages_do_not_have_yet(name):
    ours, published = NEWER[name]
    assert str(uuid.UUID(bytes_le=bytes(ours))) == published


def test_the_recorded_values_are_those_of_the_installed_headers(recorded):
    if not (shutil.which(MINGW) and shutil.which("g++") and MINGW_HEADERS.exists() and DIRECTX_HEADERS.exists()):
        pytest.skip("needs headers and compilers: apt-get install gcc-mingw-w64-x86-64 directx-headers-dev g++")
    found = extract()
    del found["packages"]
    assert found == {name: recorded[name] for name in found}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(extract(), indent=1) + "\n", encoding="utf-8")
