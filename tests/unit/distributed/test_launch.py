"""Processes of one machine end together."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from loralab.distributed import launch as launching
from loralab.distributed.launch import launch

WAIT = "import os, time\nif os.environ['RANK'] == '{rank}': {act}\ntime.sleep(60)"


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


def test_signals_reach_every_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *args: sys.exit(130))\n"
        f"open(f'{tmp_path}/' + os.environ['RANK'], 'w').close()\n"
        "time.sleep(60)"
    )

    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert launch([sys.executable, "-c", code], 2, {}) == 130
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
