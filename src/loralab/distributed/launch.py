"""Starts the processes of a run on this machine, and ends them all when one of them fails."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from loralab.distributed.place import Place
from loralab.errors import EXIT_USER

GRACE_S, LAST_GRACE_S = 30.0, 5.0
"""How long the others may take to end by themselves after one failed, and after they were told to."""
POLL_S = 0.1
FORWARDED = {
    signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGHUP: signal.SIGTERM,
}  # fmt: skip
"""Signals, and as which the processes get them: a terminal that goes away ends a run cleanly."""
LAUNCHER = "LORALAB_LAUNCHER"
"""Tells a process the number of the one that has started it."""
SIGNAL_OF_PARENT = 1
"""What Linux calls the signal that a process gets when its parent dies (`PR_SET_PDEATHSIG`)."""


def launch(command: Sequence[str], num_processes: int, environment: dict[str, str]) -> int:
    """Runs a command in several processes of this machine and waits for them.

    Signals are handed on: the processes are in sessions of their own, so that each gets every signal once.

    Args:
        command: Program and arguments.
        num_processes: How many.
        environment: What they get besides their place.

    Returns:
        0 where none failed; else what says most: a code other than 2, with which those end too whom another
        process has left.
    """
    port = _free_port()
    places = [Place(at, num_processes, at, num_processes, "127.0.0.1", port) for at in range(num_processes)]
    threads = str(max(1, (os.cpu_count() or 1) // num_processes))
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        """Sends a signal to the processes that are still there."""
        for child in children:
            if child.poll() is None:
                child.send_signal(FORWARDED[signal.Signals(number)])

    # What nohup lets a command ignore stays ignored.
    heard = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, hand_on) for number in heard}
    try:
        for place in places:
            told = {"OMP_NUM_THREADS": threads, **os.environ, **environment, **place.to_environment()}
            told[LAUNCHER] = str(os.getpid())
            children.append(subprocess.Popen(list(command), env=told, start_new_session=True))
        return _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_with_launcher(environment: Mapping[str, str]) -> None:
    """Lets this process get SIGTERM when the one that has started it dies, which cannot always say so.

    Raises:
        SystemExit: It has died already.
    """
    if LAUNCHER not in environment or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(SIGNAL_OF_PARENT, signal.SIGTERM)
    if os.getppid() != int(environment[LAUNCHER]):
        sys.exit(EXIT_USER)


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
    ended = [child.wait() for child in children]
    for at, code in enumerate(ended):
        if code < 0 and (failed is None or failed[0] == at):
            name = signal.Signals(-code).name
            print(f"error: process {at} of {len(ended)} was ended by {name}", file=sys.stderr, flush=True)
    if not any(ended):
        return 0
    return next((code for code in ended if code > 0 and code != EXIT_USER), EXIT_USER)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
