"""The structures, constants and keys of ``windows.py`` and ``activity/gpu_engines.py`` against the Windows headers.

The values were extracted from the headers of a Debian package, which ``recordings/windows_layouts.json`` names, and are
compared always. Where the compiler and the headers are installed (``apt-get install gcc-mingw-w64-x86-64``), they are
extracted anew and compared too; ``python test_windows.py`` writes the file.
"""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from phi3_core import windows
from phi3_core.activity import gpu_engines

RECORDED = Path(__file__).with_name("recordings") / "windows_layouts.json"
COMPILER = "x86_64-w64-mingw32-gcc"
PACKAGE = "mingw-w64-x86-64-dev"
HEADERS = Path("/usr/share/mingw-w64/include")
EXPRESSIONS = {
    "sizeof(GUID)": lambda: ctypes.sizeof(windows.Guid),
    "sizeof(DEVPROPKEY)": lambda: ctypes.sizeof(windows.PropertyKey),
    "offsetof(GUID, Data4)": lambda: windows.Guid.data4.offset,
    "offsetof(DEVPROPKEY, pid)": lambda: windows.PropertyKey.pid.offset,
    "sizeof(DEVINST)": lambda: ctypes.sizeof(ctypes.c_uint32),
    "sizeof(DEVPROPTYPE)": lambda: ctypes.sizeof(ctypes.c_uint32),
    "sizeof(CONFIGRET)": lambda: ctypes.sizeof(ctypes.c_uint32),
    "sizeof(WCHAR)": lambda: ctypes.sizeof(ctypes.c_uint16),
    "CM_GETIDLIST_FILTER_ENUMERATOR": lambda: windows.FILTER_ENUMERATOR,
    "CM_GETIDLIST_FILTER_PRESENT": lambda: windows.FILTER_PRESENT,
    "CM_GETIDLIST_FILTER_CLASS": lambda: windows.FILTER_CLASS,
    "CM_LOCATE_DEVNODE_NORMAL": lambda: windows.LOCATE_NORMAL,
    "CR_SUCCESS": lambda: windows.SUCCESS,
    "CR_BUFFER_SMALL": lambda: windows.BUFFER_SMALL,
    "DEVPROP_TYPE_UINT32": lambda: windows.TYPE_UINT32,
    "DEVPROP_TYPE_STRING": lambda: windows.TYPE_STRING,
    "(LONG)STD_ERROR_HANDLE": lambda: ctypes.c_int32(windows.STDERR).value,
    "ENABLE_PROCESSED_OUTPUT": lambda: windows.PROCESSED_OUTPUT,
    "ENABLE_VIRTUAL_TERMINAL_PROCESSING": lambda: windows.TERMINAL_SEQUENCES,
    "sizeof(PDH_FMT_COUNTERVALUE_ITEM_W)": lambda: ctypes.sizeof(gpu_engines.Item),
    "offsetof(PDH_FMT_COUNTERVALUE_ITEM_W, FmtValue.CStatus)": lambda: gpu_engines.Item.status.offset,
    "offsetof(PDH_FMT_COUNTERVALUE_ITEM_W, FmtValue.doubleValue)": lambda: gpu_engines.Item.value.offset,
    "sizeof(PDH_STATUS)": lambda: ctypes.sizeof(ctypes.c_uint32),
    "sizeof(PDH_HQUERY)": lambda: ctypes.sizeof(ctypes.c_void_p),
    "sizeof(DWORD_PTR)": lambda: ctypes.sizeof(ctypes.c_size_t),
    "PDH_FMT_DOUBLE": lambda: gpu_engines.DOUBLE,
    "(LONG)PDH_MORE_DATA": lambda: ctypes.c_int32(gpu_engines.MORE_DATA).value,
    "PDH_CSTATUS_VALID_DATA": lambda: gpu_engines.VALID_DATA,
    "PDH_CSTATUS_NEW_DATA": lambda: gpu_engines.NEW_DATA,
}
KEYS = {
    "DEVPKEY_Device_DeviceDesc": windows.DEVICE_DESCRIPTION,
    "DEVPKEY_Device_DriverVersion": windows.DRIVER_VERSION,
    "DEVPKEY_Device_ProblemCode": windows.PROBLEM_CODE,
}


def extract():
    """What the installed headers say."""
    found = {"package": PACKAGE, "version": _package_version(), "values": _compile(), "keys": {}}
    text = (HEADERS / "devpkey.h").read_text(encoding="ascii", errors="replace")
    for name in KEYS:
        (arguments,) = re.findall(rf"DEFINE_DEVPROPKEY\({name},([^)]*)\)", text)
        found["keys"][name] = [int(number, 0) for number in arguments.split(",")]
    return found


def _package_version():
    query = ["dpkg-query", "--show", "--showformat=${Version}", PACKAGE]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout


def _compile():
    """Evaluate the expressions: nothing is run, the values are read from the assembly."""
    lines = [
        "#include <windows.h>",
        "#include <stddef.h>",
        "#include <cfgmgr32.h>",
        "#include <devpropdef.h>",
        "#include <pdh.h>",
        "#include <pdhmsg.h>",
        "void f(void) {",
    ]
    lines += [f'asm volatile("=> {i} %c0" :: "i"((long long)({text})));' for i, text in enumerate(EXPRESSIONS)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "values.c")
        source.write_text("\n".join([*lines, "}"]), encoding="ascii")
        command = [COMPILER, "-S", "-o", "-", str(source)]
        assembly = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = {int(index): int(value) for index, value in re.findall(r"=> (\d+) (-?\d+)", assembly)}
    return {text: values[index] for index, text in enumerate(EXPRESSIONS)}


@pytest.fixture
def recorded():
    return json.loads(RECORDED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_layouts_and_constants_are_those_of_the_headers(recorded, expression):
    assert EXPRESSIONS[expression]() == recorded["values"][expression]


@pytest.mark.parametrize("name", KEYS)
def test_property_keys_are_those_of_the_headers(recorded, name):
    *guid, pid = recorded["keys"][name]
    expected = uuid.UUID(fields=(*guid[:5], int.from_bytes(bytes(guid[5:]), "big")))
    assert uuid.UUID(bytes_le=bytes(KEYS[name].fmtid)) == expected
    assert KEYS[name].pid == pid


def test_the_recorded_values_are_those_of_the_installed_headers(recorded):
    if shutil.which(COMPILER) is None or not HEADERS.exists():
        pytest.skip(f"needs {COMPILER} and {PACKAGE}: apt-get install gcc-mingw-w64-x86-64")
    found = extract()
    assert (found["values"], found["keys"]) == (recorded["values"], recorded["keys"])


def test_strings_of_windows():
    places = ["PCI\\VEN_8086&DEV_7D1D&SUBSYS_00000000&REV_04\\3&11583659&0&58", "ACPI\\QCOM0D0A\\2&DABA3FF&0"]
    assert windows.split_strings(("\0".join(places) + "\0\0").encode("utf-16-le")) == places
    assert windows.split_strings("32.0.100.3104\0".encode("utf-16-le")) == ["32.0.100.3104"]
    assert windows.split_strings(b"") == []


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(extract(), indent=1) + "\n", encoding="utf-8")
