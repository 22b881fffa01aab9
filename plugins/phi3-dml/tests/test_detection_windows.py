"""The child process that drivers may crash, and the calls into Windows' interfaces.

The processes are real, and die and hang in truth. The interfaces are tables of functions made here, laid out as
``test_windows_layouts.py`` shows that Windows lays them out: on Windows itself these calls have not been run yet.
"""

from __future__ import annotations

import ctypes
import sys
import textwrap
from typing import Any

import pytest
from phi3_core.backend import Guid
from phi3_dml.adapters import com, dxcore, dxgi, windows
from phi3_dml.adapters.records import Adapter, Core

ADAPTER: dict[str, Any] = {"name": "A GPU", "vendor": 0x10DE, "device": 1, "luid": "0:1"}
NOT_SUPPORTED = 0x80004002


def child(tmp_path, body):
    """A command whose process says what it does as the real one does, and does ``body`` on the way."""
    file = tmp_path / "child.py"
    file.write_text(
        textwrap.dedent("""
            import os, sys, time
            from phi3_dml.adapters.windows_probe import say

            passed_over = sys.argv[1:]
            def step(name, act):
                if name not in passed_over:
                    say(step=name)
                    say(step=name, found=act())
        """)
        + textwrap.dedent(body),
        encoding="utf-8",
    )
    return [sys.executable, str(file)]


TWO: list[dict[str, Any]] = [{**ADAPTER, "position": 0}, {**ADAPTER, "position": 1}]


def trials(reading):
    return {trial.position: trial.failure or trial.code for trial in reading.trials}


def test_a_step_that_crashes_is_left_out_and_the_others_are_not(tmp_path):
    command = child(
        tmp_path,
        f"""
        step("adapters", lambda: {TWO})
        step("core", lambda: os.abort())
        step("trial 0", lambda: os._exit(5))
        step("trial 1", lambda: dict(position=1, driver="1.2.3.4", code=1))
        """,
    )
    reading = windows.read(command)
    assert reading.adapters == tuple(Adapter(**item) for item in TWO)
    assert reading.core == ()
    assert [failure.partition("(")[0] for failure in reading.failures] == ["core: crashed "]
    assert trials(reading) == {1: 1, 0: "crashed (5)"}


def test_a_step_that_hangs_is_left_out(tmp_path):
    command = child(
        tmp_path,
        f"""
        step("adapters", lambda: {TWO})
        step("trial 0", lambda: time.sleep(600))
        step("trial 1", lambda: dict(position=1, code=1))
        """,
    )
    reading = windows.read(command, step_limit_s=4.0, limit_s=60.0)
    assert trials(reading) == {1: 1, 0: "did not answer within 4 s"}


def test_the_time_for_all_of_it_is_limited(tmp_path):
    body = f"step('adapters', lambda: {TWO})\n" + "\n".join(
        f"step('trial {number}', lambda: time.sleep(600))" for number in range(50)
    )
    reading = windows.read(child(tmp_path, body), step_limit_s=0.5, limit_s=1.2)
    assert len(reading.trials) <= 3


def test_a_crash_before_anything_was_listed_is_said(tmp_path):
    reading = windows.read(child(tmp_path, "step('adapters', lambda: os.abort())\n"))
    assert reading.adapters == ()
    (failure,) = reading.failures
    assert failure.startswith("adapters: crashed")


def test_a_child_that_does_not_start_is_said(tmp_path):
    reading = windows.read([sys.executable, str(tmp_path / "nothing.py")])
    assert [failure.partition(" (")[0] for failure in reading.failures] == ["the query: crashed"]


def test_what_drivers_print_is_passed_over(tmp_path):
    command = child(
        tmp_path,
        f"""
        print("driver: hello", end="", flush=True)
        step("adapters", lambda: {TWO})
        os.write(1, b"\\xff\\xfe phi3-dml: nonsense")
        step("trial 0", lambda: dict(position=0, code=1))
        print("phi3-dml: {{cut off")
        """,
    )
    reading = windows.read(command)
    assert len(reading.adapters) == 2
    assert trials(reading) == {0: 1}
    assert reading.failures == ()


@pytest.mark.skipif(sys.platform == "win32", reason="there, the real child finds what it looks for")
def test_the_real_child_fails_in_words_elsewhere():
    reading = windows.read()
    assert reading.adapters == ()
    assert len(reading.failures) == 3
    assert all("WinDLL" in failure for failure in reading.failures)


class Fake:
    """A COM object of this process: a table of functions, of which some do something."""

    def __init__(self, size, methods):
        self.references = 1
        table = (ctypes.c_void_p * size)()
        self._kept = [table]
        for method, function in {**methods, com.Method(com.RELEASE): self._release}.items():
            callback = method.type(lambda this, *arguments, _function=function: _function(*arguments))
            self._kept.append(callback)
            table[method.slot] = ctypes.cast(callback, ctypes.c_void_p).value
        self._object = ctypes.pointer(ctypes.cast(table, ctypes.c_void_p))
        self.address = ctypes.cast(self._object, ctypes.c_void_p).value

    def _release(self):
        self.references -= 1
        return self.references

    def hand_out(self, pointer):
        self.references += 1
        pointer[0] = self.address
        return 0


class FakeLibrary:
    """Exports functions."""

    def __init__(self, **functions):
        self._kept = functions
        for name, (method, function) in functions.items():
            callback = method(function)
            setattr(self, name, callback)


POINTER = ctypes.POINTER(ctypes.c_void_p)
GUID = ctypes.POINTER(Guid)
CREATE = ctypes.CFUNCTYPE(ctypes.c_uint32, GUID, POINTER)
CREATE_DEVICE = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, GUID, ctypes.c_void_p)


def fake_adapter(name, **values):
    def describe(into):
        found = into[0]
        text = name.encode("utf-16-le")
        ctypes.memmove(ctypes.byref(found), text, len(text))
        for key, value in values.items():
            setattr(found, key, value)
        found.luid = com.Luid(7, -1)
        return 0

    def check(iid, packed):
        assert bytes(iid[0]) == bytes(dxgi.IID_DXGI_DEVICE)
        packed[0] = (32 << 48) | (0 << 32) | (15 << 16) | 6094
        return 0

    return Fake(11, {dxgi.GET_DESC1: describe, dxgi.CHECK_INTERFACE_SUPPORT: check})


def fake_dxgi(adapters):
    def enumerate_adapters(position, into):
        return adapters[position].hand_out(into) if position < len(adapters) else dxgi.NOT_FOUND

    factory = Fake(14, {dxgi.ENUM_ADAPTERS1: enumerate_adapters})

    def create(iid, into):
        assert bytes(iid[0]) == bytes(dxgi.IID_FACTORY4)
        return factory.hand_out(into)

    return factory, FakeLibrary(CreateDXGIFactory=(CREATE, create))


def test_adapters_are_read_and_everything_is_released():
    fakes = [
        fake_adapter("NVIDIA  GeForce\0rubbish", vendor=0x10DE, device=0x2786, dedicated_video_memory=12 * 2**30),
        fake_adapter("", vendor=0x1414, device=0x8C, flags=2, shared_system_memory=5),
    ]
    factory, library = fake_dxgi(fakes)
    found = [adapter for adapter, _ in dxgi.adapters(library)]
    luid = "-1:7"
    assert found == [
        Adapter(position=0, name="NVIDIA GeForce", vendor=0x10DE, device=0x2786, luid=luid, dedicated_bytes=12 * 2**30),
        Adapter(position=1, name="adapter 1414:008c", vendor=0x1414, device=0x8C, luid=luid, flags=2, shared_bytes=5),
    ]
    assert [adapter.software for adapter in found] == [False, True]
    assert [fake.references for fake in (factory, *fakes)] == [1, 1, 1]


@pytest.mark.parametrize(("code", "succeeded"), [(1, True), (0x887A0004, False)])
def test_a_trial_asks_the_right_adapter_and_makes_no_device(code, succeeded):
    fakes = [fake_adapter("first"), fake_adapter("second")]
    factory, library = fake_dxgi(fakes)

    def create(adapter, level, iid, into):
        assert (adapter, level, into) == (fakes[1].address, 0xB000, None)
        assert bytes(iid[0]) == bytes(dxgi.IID_D3D12_DEVICE)
        return code

    trial = dxgi.attempt(library, FakeLibrary(D3D12CreateDevice=(CREATE_DEVICE, create)), 1)
    assert (trial.position, trial.driver, trial.code, trial.succeeded) == (1, "32.0.15.6094", code, succeeded)
    assert [fake.references for fake in (factory, *fakes)] == [1, 1, 1]


def test_a_factory_that_cannot_be_had_is_said():
    library = FakeLibrary(CreateDXGIFactory=(CREATE, lambda iid, into: NOT_SUPPORTED))
    with pytest.raises(com.ComError, match="CreateDXGIFactory: 0x80004002"):
        list(dxgi.adapters(library))


def fake_core(name, luid, *, integrated, attributes):
    values = {
        dxcore.LUID: com.Luid(luid, 0),
        dxcore.HARDWARE_ID: dxcore.HardwareId(0x8086, 0x7D1D, 0, 0),
        dxcore.DRIVER_VERSION: ctypes.c_uint64((32 << 48) | (100 << 16) | 3104),
        dxcore.IS_HARDWARE: ctypes.c_bool(True),
        dxcore.DESCRIPTION: ctypes.create_string_buffer(name.encode()),
    }
    if integrated is not None:
        values[dxcore.IS_INTEGRATED] = ctypes.c_bool(integrated)

    def get(number, size, into):
        assert size == ctypes.sizeof(values[number])
        ctypes.memmove(into, ctypes.byref(values[number]), size)
        return 0

    def get_size(number, into):
        into[0] = ctypes.sizeof(values[number])
        return 0

    kept = {bytes(attribute) for attribute in attributes}
    methods = {
        dxcore.IS_ATTRIBUTE_SUPPORTED: lambda guid: bytes(guid[0]) in kept,
        dxcore.IS_PROPERTY_SUPPORTED: lambda number: number in values,
        dxcore.GET_PROPERTY: get,
        dxcore.GET_PROPERTY_SIZE: get_size,
    }
    return Fake(13, methods), kept


def test_dxcore_adapters_are_read_once_each_and_released():
    gpu, gpu_kept = fake_core("Arc", 1, integrated=True, attributes=[dxcore.GRAPHICS, dxcore.CORE_COMPUTE])
    npu, npu_kept = fake_core("AI Boost", 2, integrated=None, attributes=[dxcore.GENERIC_ML, dxcore.NPU])
    made = []

    def create_list(count, attributes, iid, into):
        assert (count, bytes(iid[0])) == (1, bytes(dxcore.IID_LIST))
        listed = [fake for fake, kept in ((gpu, gpu_kept), (npu, npu_kept)) if bytes(attributes[0]) in kept]

        def get(index, iid, into):
            assert bytes(iid[0]) == bytes(dxcore.IID_ADAPTER)
            return listed[index].hand_out(into)

        adapters = Fake(9, {dxcore.GET_ADAPTER: get, dxcore.GET_ADAPTER_COUNT: lambda: len(listed)})
        made.append(adapters)
        return adapters.hand_out(into)

    factory = Fake(8, {dxcore.CREATE_ADAPTER_LIST: create_list})
    library = FakeLibrary(DXCoreCreateAdapterFactory=(CREATE, lambda iid, into: factory.hand_out(into)))
    common: dict[str, Any] = {"vendor": 0x8086, "hardware": True, "driver": "32.0.100.3104"}
    assert dxcore.read(library) == [
        Core(luid="0:1", name="Arc", integrated=True, graphics=True, **common),
        Core(luid="0:2", name="AI Boost", integrated=None, npu=True, **common),
    ]
    assert len(made) == 3
    assert [fake.references for fake in (factory, gpu, npu, *made)] == [1] * 6
