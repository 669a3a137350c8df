"""Processes of one machine end together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loralab.distributed import launch as launching
from loralab.distributed.launch import LAUNCHER, end_with_launcher, launch

WAIT = "import os, time\nif os.environ['RANK'] == '{rank}': {act}\ntime.sleep(60)"


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_process_is_told_its_place(tmp_path: Path) -> None:
    words = "os.environ['WORLD_SIZE'] + os.environ['X']"
    code = f"import os; open('{tmp_path}/' + os.environ['RANK'], 'w').write({words})"
    assert launch([sys.executable, "-c", code], 3, {"X": "!"}) == 0
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == ["3!"] * 3


def test_the_code_of_the_process_that_failed_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE_S", 0.2)
    began = time.monotonic()
    assert launch([sys.executable, "-c", WAIT.format(rank=1, act="raise SystemExit(7)")], 2, {}) == 7
    assert time.monotonic() - began < 30


def test_a_process_that_was_killed_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "GRACE_S", 0.2)
    assert launch([sys.executable, "-c", WAIT.format(rank=1, act="os.kill(os.getpid(), 9)")], 2, {}) == 2
    assert "error: process 1 of 2 was ended by SIGKILL" in capfd.readouterr().err


def test_a_process_that_ignores_the_end_of_the_others_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "GRACE_S", 0.2)
    monkeypatch.setattr(launching, "LAST_GRACE_S", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    began = time.monotonic()
    assert launch([sys.executable, "-c", deaf + WAIT.format(rank=0, act="raise SystemExit(3)")], 2, {}) == 3
    assert time.monotonic() - began < 30


@pytest.fixture
def hangup_by_default() -> Iterator[None]:
    """Gives the signal its default, whatever `nohup` has made of it around the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_by_default")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_every_process(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *args: sys.exit(130))\n"
        f"open(f'{tmp_path}/' + os.environ['RANK'], 'w').close()\n"
        "time.sleep(60)"
    )

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    assert launch([sys.executable, "-c", code], 2, {}) == 130
    thread.join()
    assert signal.getsignal(number) == signal.SIG_DFL


@pytest.mark.usefixtures("hangup_by_default")
def test_a_hangup_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hang_up = "import os, signal; os.kill(os.getppid(), signal.SIGHUP)"
    assert launch([sys.executable, "-c", hang_up], 1, {}) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent has died")
def test_processes_end_with_the_one_that_has_started_them(tmp_path: Path) -> None:
    child = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from loralab.distributed.launch import end_with_launcher\n"
        f"own = Path({str(tmp_path)!r}) / os.environ['RANK']\n"
        "signal.signal(signal.SIGTERM, lambda *args: sys.exit(own.write_text('ended')))\n"
        "end_with_launcher(os.environ)\n"
        "own.touch()\n"
        "time.sleep(60)"
    )
    code = "import sys; from loralab.distributed.launch import launch; launch(sys.argv[1:], 2, {})"
    launcher = subprocess.Popen([sys.executable, "-c", code, sys.executable, "-c", child])
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    finally:
        launcher.kill()
        launcher.wait()

    def said() -> list[str]:
        return [(tmp_path / str(rank)).read_text() for rank in range(2)]

    wait_until(lambda: "" not in said())
    assert said() == ["ended"] * 2


def test_a_process_whose_starter_is_gone_already_does_not_begin() -> None:
    with pytest.raises(SystemExit):
        end_with_launcher({LAUNCHER: "1" if os.getppid() != 1 else "2"})
