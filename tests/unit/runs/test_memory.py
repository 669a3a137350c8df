"""Memory is read stage by stage."""

import sys

import pytest
import torch

from loralab.runs.memory import MemoryMeter

CPU = torch.device("cpu")
BLOCK_GIB = 0.25


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts a peak anew")
def test_a_peak_belongs_to_its_stage() -> None:
    meter = MemoryMeter(CPU)
    before = meter.mark("baseline")
    block = torch.ones(int(BLOCK_GIB * 2**30), dtype=torch.uint8)
    during = meter.mark("loaded")
    del block
    after = meter.mark("steady")
    assert during.peak_gib - before.resident_gib == pytest.approx(BLOCK_GIB, abs=0.05)
    assert after.peak_gib == pytest.approx(during.resident_gib, abs=0.05)
    assert after.resident_gib == pytest.approx(before.resident_gib, abs=0.05)
    assert meter.peak_gib == max(reading.peak_gib for reading in meter.readings)
    assert [reading.stage for reading in meter.readings] == ["baseline", "loaded", "steady"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux starts a peak anew")
def test_a_new_meter_forgets_the_peak_of_an_earlier_run() -> None:
    first = MemoryMeter(CPU)
    block = torch.ones(int(BLOCK_GIB * 2**30), dtype=torch.uint8)
    first.mark("loaded")
    del block
    assert MemoryMeter(CPU).peak_gib < first.peak_gib - BLOCK_GIB / 2


def test_a_cpu_has_no_figures_of_a_gpu() -> None:
    reading = MemoryMeter(CPU).mark("baseline")
    assert (reading.allocated_gib, reading.reserved_gib) == (None, None)
    assert reading.resident_gib > 0
