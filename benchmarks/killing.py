"""A run that is killed without warning, again and again, and taken up each time.

Each run is a process that kills itself with SIGKILL shortly after one of its steps, validations or checkpoint
writes has begun, or at any time; the chances come from a seed. The processes fork from a server that has
imported everything, so that a run of a tiny model takes about a second.
"""

import contextlib
import copy
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEP, VALIDATION, WRITE, ANYTIME = "step", "validation", "checkpoint write", "any time"
FUNCTIONS = {
    STEP: ("loralab.modules.base", "AdapterModule", "training_step"),
    VALIDATION: ("loralab.modules.base", "AdapterModule", "validation_step"),
    WRITE: ("loralab.callbacks.checkpoints", None, "save_checkpoint"),
}
"""What begins at each point: module, class and function."""
PRELOADED = ["loralab.training.fit", "bitsandbytes"]


@dataclass(frozen=True)
class Kill:
    """When a process dies."""

    point: str
    """A key of `FUNCTIONS`, or any time."""
    call: int
    """Which call of the function, from 1."""
    delay_s: float
    """How long after it, or after the start, has begun."""


def plan_kills(points: Sequence[str], seed: int, limits: Mapping[str, tuple[int, float]]) -> list[Kill]:
    """Draws a kill for each point; `limits` has the latest call, and the most seconds after it has begun."""
    draw = random.Random(seed)
    return [
        Kill(point, draw.randint(1, limits[point][0]), draw.uniform(0, limits[point][1])) for point in points
    ]


def disturb(config: Any, kills: Sequence[Kill], log: Path) -> list[str]:
    """Trains a config under `run.name` to its end, with a process killed by each of the kills before.

    Args:
        config: With a name and `resume=auto`.
        kills: In their order.
        log: Takes what the processes print.

    Returns:
        The point of each kill that came; a run that was over sooner than one is not killed.

    Raises:
        RuntimeError: A process ended in another way than by being killed or by finishing.
    """
    came = []
    for kill in (*kills, None):
        code = run_process(config, kill, log)
        if code == 0:
            break
        if code != -signal.SIGKILL or kill is None:
            raise RuntimeError(f"a process ended with {code} after {len(came)} kills; see {log}")
        came.append(kill.point)
    return came


def run_process(config: Any, kill: Kill | None, log: Path) -> int | None:
    """Trains in a process of its own and returns its exit code, negative for a signal."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=train_and_die, args=(copy.deepcopy(config), kill, log))
    process.start()
    process.join()
    return process.exitcode


def train_and_die(config: Any, kill: Kill | None, log: Path) -> None:
    """Trains, unless the kill comes first."""
    from loralab.training.fit import train

    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        if kill is not None:
            arm(kill)
        try:
            train(config)
        except BaseException:
            file.flush()
            sys.excepthook(*sys.exc_info())
            raise


def arm(kill: Kill) -> None:
    """Lets this process die when it comes to the point."""
    if kill.point == ANYTIME:
        die_later(kill.delay_s)
        return
    module_name, class_name, name = FUNCTIONS[kill.point]
    owner: Any = sys.modules[module_name]
    if class_name is not None:
        owner = getattr(owner, class_name)
    setattr(owner, name, counted(getattr(owner, name), kill))


def counted(function: Callable[..., Any], kill: Kill) -> Callable[..., Any]:
    """Wraps a function whose n-th call is the point to die after."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        """Counts, and sets the clock at the n-th call."""
        nonlocal calls
        calls += 1
        if calls == kill.call:
            die_later(kill.delay_s)
        return function(*args, **kwargs)

    return call


def die_later(delay_s: float) -> None:
    """Kills this process after a while, whatever it is doing then."""

    def die() -> None:
        time.sleep(delay_s)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die, daemon=True).start()
