"""The allocator is replaced once, where that is wanted, and by a file that is really there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loralab.runs import allocator
from loralab.runs.allocator import find_libraries, is_replaced, is_wanted

SHOW = """
import os, sys
from loralab.runs.allocator import preload
if __name__ == "__main__":
    preload()
    maps = open("/proc/self/maps").read()
    print(os.getpid(), sys.argv[1:], "tbbmalloc_proxy" in maps)
"""
LIBRARIES = find_libraries()
needs_library = pytest.mark.skipif(not LIBRARIES, reason="oneTBB is not there for this machine")
needs_cpu = pytest.mark.skipif(allocator.GPU_DRIVER.exists(), reason="with a GPU nothing is replaced")


def show(tmp_path: Path, **environment: str) -> tuple[int, str]:
    """Runs a command that preloads; returns whether its process stayed the same, and what it printed."""
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    kept = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "-W", "ignore", str(script), "a b", "c=d"]
    with subprocess.Popen(command, env={**kept, **environment}, stdout=subprocess.PIPE, text=True) as process:
        printed = process.communicate()[0]
    number, _, rest = printed.strip().partition(" ")
    return int(number) == process.pid, rest


@needs_library
@needs_cpu
def test_a_command_starts_anew_with_the_same_words_in_the_same_process(tmp_path: Path) -> None:
    assert show(tmp_path) == (True, "['a b', 'c=d'] True")


@needs_library
def test_the_user_decides(tmp_path: Path) -> None:
    assert show(tmp_path, LORALAB_ALLOCATOR="system") == (True, "['a b', 'c=d'] False")


@needs_library
def test_a_program_that_runs_a_command_inside_itself_goes_on(tmp_path: Path) -> None:
    inside = tmp_path / "inside.py"
    inside.write_text(SHOW)
    around = (
        f"import runpy, sys; sys.argv = ['inside.py']; runpy.run_path({str(inside)!r}, run_name='__main__')"
    )
    kept = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([sys.executable, "-c", around], env=kept, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split(" ", 1)[1] == "[] False\n"


def test_what_the_user_has_preloaded_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(allocator, "GPU_DRIVER", tmp_path / "none")
    assert is_wanted({})
    assert not is_wanted({"LD_PRELOAD": "/usr/lib/libother.so"})
    assert not is_wanted({"LORALAB_ALLOCATOR": "system"})
    (tmp_path / "none").touch()
    assert not is_wanted({})


def test_known_allocators_are_told_by_their_names() -> None:
    assert is_replaced({"LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"})
    assert is_replaced({"LD_PRELOAD": "/a/libtbbmalloc.so.2:/a/libtbbmalloc_proxy.so.2"})
    assert not is_replaced({"LD_PRELOAD": "/usr/lib/libother.so"})
    assert not is_replaced({})


def test_nothing_is_preloaded_where_the_package_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise allocator.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(allocator.importlib.metadata, "files", absent)
    assert find_libraries() == []


HELD = """
import ctypes, os
from loralab.runs.allocator import give_back
from loralab.runs.memory import rss_gib
blocks = [ctypes.create_string_buffer(b"x" * 2**16) for _ in range(2000)]
kept = blocks[::100]
held = rss_gib()
del blocks
give_back()
print(held - rss_gib() > 0.04)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only known there")
@pytest.mark.parametrize("preloaded", [[], LIBRARIES], ids=["glibc", "oneTBB"])
def test_free_memory_goes_back_to_the_system(preloaded: list[Path]) -> None:
    # 125 MiB in blocks of 64 KiB, of which every hundredth stays; oneTBB gives half of it back, and 5 MiB is
    # the most that goes back without being asked for.
    environment = {**os.environ, "LD_PRELOAD": ":".join(map(str, preloaded))}
    done = subprocess.run([sys.executable, "-c", HELD], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
