"""Write the Windows DLLs that Wine 8 lacks: tables of exports that forward to others, and a few bytes of code.

- Rust's standard library (tokenizers, safetensors, hf_xet) takes random numbers from ``bcryptprimitives.dll``.
- numpy imports functions on complex numbers from the C runtime; Wine's end the process.

The format is that of Microsoft's "PE Format" specification.
"""

from __future__ import annotations

import struct
from pathlib import Path

_MATH, _OURS = b"api-ms-win-crt-math-l1-1-0.dll", b"shimms-win-crt-math-l1-1-0.dll"
_BASE, _RVA, _FILE = 0x180000000, 0x1000, 0x400
# Microsoft's x64 calling convention: a complex number of two floats comes in rcx, one of two doubles as a pointer in
# rcx; the result goes into xmm0.
_CODE = {
    "crealf": "660f6ec1 c3",  # movd xmm0, ecx
    "cimagf": "48c1e920 660f6ec1 c3",  # shr rcx, 32; movd xmm0, ecx
    "creall": "f20f1001 c3",  # movsd xmm0, [rcx]
    "cimag": "f20f104108 c3",  # movsd xmm0, [rcx + 8]
    "cimagl": "f20f104108 c3",
}


def write_missing(site: Path, home: Path) -> None:
    """Write the libraries beside ``python.exe`` in ``home``, and let the modules of numpy in ``site`` use them."""
    wanted: set[str] = set()
    for path in site.glob("numpy/**/*.pyd"):
        data = path.read_bytes()
        if _MATH in data:
            wanted |= _imports(data, _MATH)
            path.write_bytes(data.replace(_MATH, _OURS))
    math = {name: _CODE.get(name, f"ucrtbase.{name}") for name in wanted}
    random = {"ProcessPrng": "advapi32.SystemFunction036"}
    for name, exports in ((_OURS.decode(), math), ("bcryptprimitives.dll", random)):
        (home / name).write_bytes(_library(name, exports))


def _library(name: str, exports: dict[str, str]) -> bytes:
    """Return a DLL. ``exports`` are code in hexadecimal digits, or ``LIBRARY.FUNCTION`` to forward to."""
    section, directory_bytes = _export_section(name, exports)
    size = len(section)
    section += bytes(-size % 0x200)
    header = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    header += struct.pack("<HBBIIIII", 0x20B, 14, 0, len(section), 0, 0, 0, _RVA)
    header += struct.pack(
        *("<QIIHHHHHHIIIIHH", _BASE, 0x1000, 0x200, 6, 0, 0, 0, 6, 0, 0),
        *(_RVA + ((size + 0xFFF) & ~0xFFF), _FILE, 0, 3, 0x100),
    )
    header += struct.pack("<QQQQII", 0x100000, 0x1000, 0x100000, 0x1000, 0, 16)
    header += struct.pack("<II", _RVA, directory_bytes) + bytes(8 * 15)
    header += struct.pack("<8sIIIIIIHHI", b".text", size, _RVA, len(section), _FILE, 0, 0, 0, 0, 0x60000020)
    image = b"MZ" + bytes(58) + struct.pack("<I", 0x40) + b"PE\0\0" + header
    return image + bytes(_FILE - len(image)) + section


def _export_section(name: str, exports: dict[str, str]) -> tuple[bytes, int]:
    """Return the section with the export directory and the code, and the size of the directory in bytes."""
    names = sorted(exports)
    functions = _RVA + 40
    strings = functions + 4 * len(names)
    text = bytearray()
    addresses: dict[str, int] = {}

    def put(key: str, value: str) -> None:
        addresses[key] = strings + 6 * len(names) + len(text)
        text.extend(value.encode() + b"\0")

    put("name", name)
    for each in names:
        put(f"name of {each}", each)
        if "." in exports[each]:
            put(each, exports[each])
    # An address within the directory is a forwarder, so the code is behind it.
    code = bytearray()
    end = strings + 6 * len(names) + len(text)
    for each in names:
        if "." not in exports[each]:
            addresses[each] = end + len(code)
            code += bytes.fromhex(exports[each])
    counts = (1, len(names), len(names))
    ordinals = strings + 4 * len(names)
    section = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, addresses["name"], *counts, functions, strings, ordinals)
    section += b"".join(struct.pack("<I", addresses[each]) for each in names)
    section += b"".join(struct.pack("<I", addresses[f"name of {each}"]) for each in names)
    section += b"".join(struct.pack("<H", number) for number in range(len(names)))
    return section + bytes(text) + bytes(code), end - _RVA


def _imports(data: bytes, library: bytes) -> set[str]:
    """Return the names that a DLL imports from a library."""
    start = struct.unpack_from("<I", data, 0x3C)[0]
    count, optional = struct.unpack_from("<H", data, start + 6)[0], struct.unpack_from("<H", data, start + 20)[0]
    table = start + 24 + optional
    sections = [struct.unpack_from("<IIII", data, table + 40 * number + 8) for number in range(count)]

    def offset(rva: int) -> int:
        for size, address, raw, position in sections:
            if address <= rva < address + max(size, raw):
                return int(rva - address + position)
        raise ValueError(f"{rva:#x} is in no section")

    found: set[str] = set()
    entry = offset(struct.unpack_from("<I", data, start + 24 + 112 + 8)[0])
    while any(data[entry : entry + 20]):
        lookup, _, _, name, first = struct.unpack_from("<IIIII", data, entry)
        entry += 20
        begin = offset(name)
        if data[begin : data.index(0, begin)] != library:
            continue
        thunk = offset(lookup or first)
        while value := struct.unpack_from("<Q", data, thunk)[0]:
            thunk += 8
            if not value >> 63:  # by name, not by number
                begin = offset(value) + 2
                found.add(data[begin : data.index(0, begin)].decode())
    return found
