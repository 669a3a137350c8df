"""Starts the processes of a run on this machine, and ends them all when one of them fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from loralab.distributed.place import Place

GRACE_S, LAST_GRACE_S = 30.0, 5.0
"""How long the others may take to end by themselves after one failed, and after they were told to."""
POLL_S = 0.1
FORWARDED = (signal.SIGTERM, signal.SIGUSR1)


def launch(command: Sequence[str], num_processes: int, environment: dict[str, str]) -> int:
    """Runs a command in several processes of this machine and waits for them.

    Signals are handed on. A terminal sends Ctrl-C to all of them itself.

    Args:
        command: Program and arguments.
        num_processes: How many.
        environment: What they get besides their place.

    Returns:
        The exit code: that of the first process that failed by itself, 0 where none did.
    """
    port = _free_port()
    places = [Place(at, num_processes, at, num_processes, "127.0.0.1", port) for at in range(num_processes)]
    threads = str(max(1, (os.cpu_count() or 1) // num_processes))
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in FORWARDED}
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        for place in places:
            told = {"OMP_NUM_THREADS": threads, **os.environ, **environment, **place.to_environment()}
            children.append(subprocess.Popen(list(command), env=told))
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(children: Sequence["subprocess.Popen[bytes]"]) -> int:
    """Waits for all; gives them a while to end once one has failed."""
    failed: tuple[int, int] | None = None
    deadlines = [float("inf"), float("inf")]
    while any(child.poll() is None for child in children):
        time.sleep(POLL_S)
        codes = [child.poll() for child in children]
        if failed is None and any(codes):
            failed = next((at, code) for at, code in enumerate(codes) if code)
            deadlines = [time.monotonic() + GRACE_S, time.monotonic() + GRACE_S + LAST_GRACE_S]
        for child in children:
            if child.poll() is None and time.monotonic() > deadlines[1]:
                child.kill()
            elif child.poll() is None and time.monotonic() > deadlines[0]:
                child.terminate()
    codes = [child.returncode for child in children]
    failed = failed or next(((at, code) for at, code in enumerate(codes) if code), None)
    if failed is None:
        return 0
    at, code = failed
    if code > 0:
        return code
    name = signal.Signals(-code).name
    print(f"error: process {at} of {len(codes)} was ended by {name}", file=sys.stderr, flush=True)
    # The others have said how to go on.
    return 2


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
