"""Windows' performance counters of GPUs and NPUs, by names that machines with both have been reported to have.

Nothing of this was ever run on Windows with a GPU.
"""

from __future__ import annotations

import sys

import pytest
from phi3_core.activity.gpu_engines import GpuEngines, used

OWN, OTHER = 4188, 952
GPU, NPU, BASIC = "0x00000000_0x0000B75A", "0x00000000_0x0000BB15", "0x00000000_0x0000BAEA"


def instance(process, adapter, part, kind):
    return f"pid_{process}_luid_{adapter}_phys_0_eng_{part}_engtype_{kind}"


IDLE = {
    **{instance(OTHER, GPU, part, kind): 0.0 for part, kind in enumerate(("3D", "Copy", "VideoDecode", "Compute"))},
    instance(OTHER, GPU, 12, "GSC"): 0.0,
    instance(OTHER, GPU, 13, "Neural"): 0.0,
    instance(OTHER, BASIC, 0, "3D"): 0.0,
    instance(OTHER, NPU, 0, "Compute"): 0.0,
}


def test_the_npu_is_the_adapter_without_graphics():
    busy = {**IDLE, instance(OWN, NPU, 0, "Compute"): 93.5}
    assert used(busy, OWN) == (0.0, 0.935)
    assert used({**IDLE, instance(OWN, NPU, 0, "Neural"): 50.0}, OWN) == (0.0, 0.5)


def test_the_neural_part_of_a_gpu_is_no_npu():
    found = used({**IDLE, instance(OWN, GPU, 13, "Neural"): 99.8}, OWN)
    assert found.gpu == pytest.approx(0.998)
    assert found.npu == 0.0


def test_other_processes_do_not_count_for_an_engine_but_for_the_machine():
    busy = {**IDLE, instance(OWN, GPU, 3, "Compute"): 30.0, instance(OTHER, GPU, 3, "Compute"): 50.0}
    assert used(busy, OWN) == (0.3, 0.0)
    assert used(busy, None) == (0.8, 0.0)


def test_the_busiest_part_counts():
    busy = {**IDLE, instance(OWN, GPU, 0, "3D"): 20.0, instance(OWN, GPU, 3, "Compute"): 70.0}
    assert used(busy, OWN).gpu == pytest.approx(0.7)


@pytest.mark.parametrize("percentage", [279947.0, -5.0])
def test_percentages_that_drivers_get_wrong_stay_between_0_and_1(percentage):
    assert used({instance(OWN, GPU, 0, "3D"): percentage}, OWN).gpu in {0.0, 1.0}


def test_no_adapter_is_no_figure():
    assert used({}, OWN) == (None, None)
    assert used({"pid_1_luid_broken": 5.0, "_Total": 3.0}, OWN) == (None, None)
    assert used({instance(OTHER, GPU, 0, "3D"): 5.0}, OWN) == (0.0, None)


def test_the_case_of_names_does_not_matter():
    assert used({instance(OWN, NPU, 0, "compute").upper().replace("PID", "pid"): 10.0}, OWN).npu == 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="for systems without these counters")
def test_other_systems_say_that_they_are_not_windows():
    with pytest.raises(AttributeError):
        GpuEngines()


@pytest.mark.skipif(sys.platform != "win32", reason="needs Windows")
def test_windows_has_the_counters():
    try:
        counters = GpuEngines()
    except OSError as error:
        pytest.skip(str(error))
    assert all(percentage >= 0 for percentage in counters.read().values())
    counters.close()
