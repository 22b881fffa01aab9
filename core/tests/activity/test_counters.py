"""What drivers on Linux tell of GPUs and NPUs, and what is made of it."""

from __future__ import annotations

import os
import time

import device_files as system
import psutil
import pytest
from phi3_core.activity import drm
from phi3_core.activity.counts import Count, Key, share
from phi3_core.activity.meter import Meter
from phi3_core.activity.npus import Npu, npus
from phi3_core.activity.values import Activity, Mean

SECOND = 10**9
OWN = os.getpid()


@pytest.fixture
def clock():
    """Seconds that pass when they are told to."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


# --- NPUs -------------------------------------------------------------------------------------------------------------


def test_an_npu_tells_busy_time_memory_and_frequency(tmp_path):
    others = {"npu_memory_utilization": 2_150_629_376, "npu_current_frequency_mhz": 1400, "npu_max_frequency_mhz": 1850}
    system.write(tmp_path, system.npu(0, 1_500_000, **others))
    (found,) = npus(tmp_path)
    assert found == Npu(name="accel0", busy_s=1.5, memory_bytes=2_150_629_376, frequency_mhz=1400)


def test_an_older_driver_tells_less(tmp_path):
    system.write(tmp_path, system.npu(0, 0))
    assert list(npus(tmp_path)) == [Npu(name="accel0", busy_s=0.0)]


@pytest.mark.parametrize("text", ["", "busy", "1e3"])
def test_what_is_no_number_is_not_told(tmp_path, text):
    system.write(tmp_path, {"sys/class/accel/accel0/device/npu_busy_time_us": text})
    assert list(npus(tmp_path)) == []


def test_other_accelerators_are_not_told(tmp_path):
    system.write(tmp_path, {"sys/class/accel/accel0/device/vendor": "0x1da3"})
    assert list(npus(tmp_path)) == []


# --- clients of drivers -----------------------------------------------------------------------------------------------


def between(tmp_path, first, second, seconds=1.0):
    """The counters of two readings."""
    found = []
    for now, texts in ((50.0, first), (50.0 + seconds, second)):
        system.write(tmp_path, system.files(OWN, *texts))
        found.append(dict(drm.counts(drm.clients(OWN, tmp_path), now)))
    return found


def test_i915_counts_nanoseconds(tmp_path):
    before, after = between(tmp_path, [system.i915(0)], [system.i915(SECOND // 4, SECOND // 2)])
    assert share("gpu", before, after) == pytest.approx(0.5)  # the busiest part's
    assert share("npu", before, after) is None


def test_xe_counts_cycles_of_several_parts_of_a_kind(tmp_path):
    before, after = between(
        tmp_path, [system.xe(0, 7_655_183_225)], [system.xe(19_200_000, 7_655_183_225 + 19_200_000)]
    )
    assert share("gpu", before, after) == pytest.approx(0.25)


def test_files_that_are_one_client_count_once(tmp_path):
    before, after = between(tmp_path, [system.i915(0)] * 3, [system.i915(SECOND // 2)] * 3)
    assert share("gpu", before, after) == pytest.approx(0.5)
    assert drm.memory(drm.clients(OWN, tmp_path)) == 8 * 2**20


def test_clients_of_one_device_add_up_to_no_more_than_all_of_it(tmp_path):
    first = [system.i915(0, number=1), system.i915(0, number=2)]
    before, after = between(tmp_path, first, [system.i915(SECOND // 4, number=1), system.i915(SECOND // 4, number=2)])
    assert share("gpu", before, after) == pytest.approx(0.5)
    before, after = between(tmp_path, first, [system.i915(SECOND, number=1), system.i915(SECOND, number=2)])
    assert share("gpu", before, after) == 1.0


def test_two_devices_do_not_add_up(tmp_path):
    first = [system.i915(0), system.xe(0, 0)]
    before, after = between(tmp_path, first, [system.i915(SECOND // 4), system.xe(2 * SECOND, SECOND)])
    assert share("gpu", before, after) == pytest.approx(0.5)


def test_a_counter_that_goes_back_for_a_moment_is_idle(tmp_path):
    before, after = between(tmp_path, [system.i915(SECOND)], [system.i915(SECOND - 1000)])
    assert share("gpu", before, after) == 0.0


def test_a_client_that_has_just_come_is_left_out(tmp_path):
    before, after = between(tmp_path, [system.i915(0)], [system.i915(0), system.i915(9 * SECOND, number=8)])
    assert share("gpu", before, after) == 0.0


def test_amds_npu_counts_nanoseconds(tmp_path):
    def text(busy):
        return system.client("amdxdna_accel_driver", total_memory="64 MiB", engine_npu_amdxdna=f"{busy} ns")

    before, after = between(tmp_path, [text(0)], [text(SECOND // 5)])
    assert share("npu", before, after) == pytest.approx(0.2)
    assert share("gpu", before, after) is None


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"resident_vram0": "23992 KiB", "resident_gtt": "192 KiB"}, (23992 + 192) * 1024),
        ({"memory_vram": "3 MiB", "memory_gtt": "1 MiB"}, 4 * 2**20),
        ({"memory_vram": "3 MiB", "resident_vram": "3 MiB"}, 3 * 2**20),  # two names for one thing
        ({"resident_system": "4096"}, 4096),
        ({"resident_system": "0"}, 0),
        ({"total_vram0": "9 MiB"}, None),  # what is not in memory does not count
    ],
)
def test_memory_of_a_client(tmp_path, fields, size):
    system.write(tmp_path, system.files(OWN, system.client("xe", **fields)))
    assert drm.memory(drm.clients(OWN, tmp_path)) == size


def test_a_process_without_such_files_or_without_itself(tmp_path):
    system.write(tmp_path, system.files(OWN))
    assert drm.clients(OWN, tmp_path) == drm.clients(OWN + 1, tmp_path) == ()
    assert drm.memory(()) is None


def test_a_field_that_is_malformed_counts_nothing(tmp_path):
    text = system.client("xe", cycles_ccs="many", total_cycles_ccs=7, engine_capacity_ccs=0, resident_vram0="2 pages")
    system.write(tmp_path, system.files(OWN, text))
    found = drm.clients(OWN, tmp_path)
    assert dict(drm.counts(found, 1.0)) == {Key("gpu", "0000:00:02.0", "ccs", "7"): Count(0.0, 7.0)}
    assert drm.memory(found) == 0


# --- a meter ----------------------------------------------------------------------------------------------------------


def test_a_meter_tells_what_has_happened_since_the_last_reading(tmp_path, clock):
    system.write(tmp_path, {**system.npu(0, 10**6), **system.npu(1, 0), **system.files(OWN, system.i915(0))})
    meter = Meter(OWN, root=tmp_path, clock=clock)
    clock.now += 2
    system.write(tmp_path, {**system.npu(0, 2 * 10**6), **system.files(OWN, system.i915(SECOND))})
    found = meter.read()
    assert (found.seconds, found.npu, found.gpu) == pytest.approx((2.0, 0.5, 0.5))
    assert found.device_memory_bytes == 8 * 2**20
    clock.now += 1
    found = meter.read()
    assert (found.seconds, found.npu, found.gpu) == (1.0, 0.0, 0.0)


def test_a_driver_that_tells_of_the_process_is_believed_before_one_that_tells_of_all(tmp_path, clock):
    def at(busy_us, own_ns):
        own = system.client("intel_vpu", device="0000:00:0b.0", engine_npu=f"{own_ns} ns")
        system.write(tmp_path, {**system.npu(0, busy_us), **system.files(OWN, own)})

    at(0, 0)
    meter = Meter(OWN, root=tmp_path, clock=clock)
    clock.now += 1
    at(900_000, SECOND // 10)
    assert meter.read().npu == pytest.approx(0.1)


def test_shares_of_almost_no_time_are_not_told(tmp_path, clock):
    system.write(tmp_path, system.npu(0, 0))
    meter = Meter(OWN, root=tmp_path, clock=clock)
    clock.now += 0.01
    found = meter.read()
    assert (found.cpu, found.engine_cpu, found.npu) == (None, None, None)
    assert found.memory_bytes


def test_processors_of_this_machine(tmp_path):
    """Real ones: what this process takes is a part of what is taken."""
    meter = Meter(OWN, root=tmp_path)
    before = sum(psutil.Process().cpu_times()[:2])
    end = time.monotonic() + 10
    while sum(psutil.Process().cpu_times()[:2]) - before < 0.2 and time.monotonic() < end:
        sum(range(10_000))
    found = meter.read()
    assert found.cpu is not None
    assert found.engine_cpu is not None
    assert 0 < found.engine_cpu <= 1
    assert found.cpu > 0
    assert (found.gpu, found.npu) == (None, None)


def test_a_process_that_has_ended_tells_nothing(tmp_path, clock):
    meter = Meter(2**22 + 1, root=tmp_path, clock=clock)  # over the largest process id
    clock.now += 1
    found = meter.read()
    assert (found.engine_cpu, found.memory_bytes, found.device_memory_bytes) == (None, None, None)


def test_the_mean_is_weighted_by_time():
    mean = Mean()
    assert mean.result == Activity()
    mean.add(Activity(seconds=1.0, cpu=1.0, memory_bytes=5))
    mean.add(Activity(seconds=3.0, cpu=0.0, npu=0.5, memory_bytes=3))
    mean.add(Activity(seconds=0.05))
    found = mean.result
    assert (found.seconds, found.cpu, found.npu, found.gpu) == (4.05, 0.25, 0.5, None)
    assert (found.memory_bytes, found.device_memory_bytes) == (5, None)
