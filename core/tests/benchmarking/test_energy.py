"""Counters of energy. This machine has none: the files are laid out as the kernel's documentation says.

The names and ranges of RAPL's zones are those of a laptop and of a server with two sockets, as its page prints them.
"""

from __future__ import annotations

import sys

import pytest
from phi3_core.benchmarking.energy import Counter, EnergyMeter, counters

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its files have no colons in their names")
RANGE = 262143328850


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n", encoding="ascii")


def zone(name, title, energy, *, limit=RANGE):
    folder = f"class/powercap/{name}"
    return {f"{folder}/name": title, f"{folder}/energy_uj": energy, f"{folder}/max_energy_range_uj": limit}


def card(number, driver, **energy):
    folder = f"class/drm/card{number}/device/hwmon/hwmon{number + 3}"
    return {f"{folder}/name": driver, **{f"{folder}/{name}_input": value for name, value in energy.items()}}


LAPTOP = {
    **zone("intel-rapl:0", "package-0", 1000),
    **zone("intel-rapl:0:0", "core", 600),
    **zone("intel-rapl:0:1", "uncore", 300),
    **zone("intel-rapl:1", "psys", 5000),
    **zone("intel-rapl-mmio:0", "package-0", 1000),  # the same package, by another way
}
SERVER = {**zone("intel-rapl:0", "package-0", 10**6), **zone("intel-rapl:1", "package-1", 2 * 10**6)}


def names(found):
    return [counter.file.parent.name for counter in found]


@pytest.mark.parametrize("kind", ["cpu", "gpu", "npu"])
def test_a_package_counts_once_and_without_its_parts_or_the_whole_machine(tmp_path, kind):
    write(tmp_path, LAPTOP)
    assert names(counters(kind, tmp_path)) == ["intel-rapl:0"]


def test_all_packages_count(tmp_path):
    write(tmp_path, SERVER)
    meter = EnergyMeter(counters("cpu", tmp_path))
    write(tmp_path, {"class/powercap/intel-rapl:0/energy_uj": 3 * 10**6})
    write(tmp_path, {"class/powercap/intel-rapl:1/energy_uj": 7 * 10**6})
    assert meter.joules() == pytest.approx(7.0)


def test_dies_of_a_package_count(tmp_path):
    dies = {**zone("intel-rapl:0", "package-0-die-0", 1), **zone("intel-rapl:1", "package-0-die-1", 1)}
    write(tmp_path, dies)
    assert len(counters("cpu", tmp_path)) == 2


def test_a_counter_that_begins_again_at_its_range(tmp_path):
    write(tmp_path, zone("intel-rapl:0", "package-0", RANGE - 2 * 10**6))
    meter = EnergyMeter(counters("cpu", tmp_path))
    write(tmp_path, {"class/powercap/intel-rapl:0/energy_uj": 3 * 10**6})
    assert meter.joules() == pytest.approx(5.0)


def test_a_package_that_may_not_be_read_leaves_the_energy_untold(tmp_path):
    write(tmp_path, SERVER)
    # Root may read all files, so that one is a folder.
    file = tmp_path / "class/powercap/intel-rapl:1/energy_uj"
    file.unlink()
    file.mkdir()
    assert counters("cpu", tmp_path) == ()


def test_a_counter_that_goes_away_leaves_the_energy_untold(tmp_path):
    write(tmp_path, LAPTOP)
    meter = EnergyMeter(counters("cpu", tmp_path))
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").unlink()
    assert meter.joules() is None


def test_no_counters(tmp_path):
    assert counters("cpu", tmp_path) == counters("dgpu", tmp_path) == ()
    assert EnergyMeter(()).joules() is None


@pytest.mark.parametrize(
    ("cards", "file"),
    [
        (card(0, "i915", energy1=7), "energy1_input"),
        (card(0, "xe", energy1=7, energy2=5), "energy1_input"),  # the package is a part of the card
        (card(0, "xe", energy2=5), "energy2_input"),
    ],
    ids=["i915", "xe", "xe without the card's"],
)
def test_a_discrete_gpu_counts_beside_the_processor(tmp_path, cards, file):
    write(tmp_path, {**LAPTOP, **cards})
    package, gpu = counters("dgpu", tmp_path)
    assert (names([package]), gpu.file.name, gpu.range) == (["intel-rapl:0"], file, 0)
    assert names(counters("cpu", tmp_path)) == ["intel-rapl:0"]


def test_parts_of_a_gpu_and_other_sensors_of_it_do_not_count(tmp_path):
    parts = {**card(0, "i915", energy1=7), **card(1, "i915_gt0", energy1=3), **card(2, "amdgpu", energy1=1)}
    write(tmp_path, parts)
    assert [counter.file.parent.name for counter in counters("dgpu", tmp_path)] == ["hwmon3"]


def test_the_energy_of_a_discrete_gpu_is_not_told_without_its_own_counter(tmp_path):
    write(tmp_path, {**LAPTOP, **card(0, "xe")})
    assert counters("dgpu", tmp_path) == ()


def test_a_counter_without_a_range_that_goes_back_leaves_the_energy_untold(tmp_path):
    write(tmp_path, {"energy1_input": 10**7})
    meter = EnergyMeter((Counter(file=tmp_path / "energy1_input", range=0),))
    write(tmp_path, {"energy1_input": 10**6})
    assert meter.joules() is None
