"""Memory is read stage by stage."""

import sys
from pathlib import Path

import psutil
import pytest
import torch

from loralab.runs import memory
from loralab.runs.memory import MemoryMeter, available_memory, cgroup_free_bytes

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


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def member(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "cgroup"
    path.write_text(f"7:blkio:/elsewhere\n{line}\n")
    return path


def test_the_tightest_limit_above_a_process_counts(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    group(root / "job" / "step", memory__max="max", memory__current=300)
    # 1000 less 700, of which 50 are cached files that give way.
    stat = "anon 650\ninactive_file 50"
    group(root / "job", memory__max=1000, memory__current=700, memory__stat=stat)
    assert cgroup_free_bytes(member(tmp_path, "0::/job/step"), root) == 350


def test_version_1_of_control_groups_is_read_too(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    limits = {"memory__limit_in_bytes": 800, "memory__usage_in_bytes": 500}
    group(root / "memory", **limits, memory__stat="total_inactive_file 20")
    # The path of a container's group is that of the host, which is not mounted.
    assert cgroup_free_bytes(member(tmp_path, "4:cpu,memory:/docker/abc"), root) == 320


def test_no_limit_is_none(tmp_path: Path) -> None:
    root = tmp_path / "fs"
    group(root, memory__max="max", memory__current=300)
    assert cgroup_free_bytes(member(tmp_path, "0::/"), root) is None
    assert cgroup_free_bytes(tmp_path / "missing", root) is None


def test_a_limit_lowers_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cgroup_free_bytes", lambda *_: 1000)
    assert available_memory() == 1000
    monkeypatch.setattr(memory, "cgroup_free_bytes", lambda *_: 2**60)
    assert available_memory() <= psutil.virtual_memory().total


def test_a_system_that_starts_no_peak_anew_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    assert not MemoryMeter(CPU).can_reset
