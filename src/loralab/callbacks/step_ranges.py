"""Names the stretches of a training step in a profile, while one is recorded and no longer."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as pl
from torch import nn
from torch.profiler import record_function

from loralab.model.module_kinds import module_kinds
from loralab.modules.base import AdapterModule
from loralab.runs.step_parts import (
    BACKWARD,
    CALLBACK,
    DATA,
    EXCHANGE,
    FORWARD,
    OPTIMIZER,
    PUBLISH,
    SEPARATOR,
)

ACTIONS = {".train_dataloader_next": "waiting for the loader", ".batch_to_device": "to the device"}
"""Ends of Lightning's names for what brings a batch."""
OF_CALLBACK = "[Callback]"
"""How Lightning's name for a callback's hook begins."""
Function = Callable[..., Any]


@contextlib.contextmanager
def step_ranges(trainer: pl.Trainer, module: AdapterModule) -> Iterator[None]:
    """Records ranges of loading, forward, backward, optimizer, callbacks, and each module of the model."""
    with contextlib.ExitStack() as ranges:
        ranges.enter_context(_replaced(trainer, "profiler", ActionRanges()))
        # A profile is of what one thread does.
        ranges.enter_context(module.row_threads.in_turn())
        update = _LaterRange(OPTIMIZER)
        ranges.callback(update.close)
        for owner, name, wrap in (
            (module, "item_losses", _within(FORWARD)),
            (module, "manual_backward", _within(BACKWARD)),
            (module, "_add_up", _within(EXCHANGE)),
            (module.masters, "publish", _within(PUBLISH)),
            (module.limit, "run", update.opened_after),
            (module, "training_step", update.closed_after),
        ):
            ranges.enter_context(_replaced(owner, name, wrap(getattr(owner, name))))
        for name, part, kind in module_kinds(module.model):
            ranges.enter_context(_hooked(part, f"{kind}{SEPARATOR}{name}"))
        yield


class ActionRanges(pl.profilers.Profiler):
    """Makes ranges of what Lightning announces: fetching a batch, moving it, and each callback."""

    def __init__(self) -> None:
        """Starts with nothing open."""
        super().__init__()
        self._open: dict[str, record_function] = {}

    def start(self, action_name: str) -> None:
        """Opens the range of an action that has one."""
        if (name := range_name(action_name)) is not None:
            self._open[action_name] = record_function(name)
            self._open[action_name].__enter__()

    def stop(self, action_name: str) -> None:
        """Closes it."""
        if (opened := self._open.pop(action_name, None)) is not None:
            opened.__exit__(None, None, None)


def range_name(action: str) -> str | None:
    """Returns what the range of an action of Lightning's is called; None where it has none."""
    if action.startswith(OF_CALLBACK):
        name = action.removeprefix(OF_CALLBACK)
        # The profiler's own hooks end one step and begin the next.
        return None if name.startswith("Profiler.") else f"{CALLBACK}{SEPARATOR}{name}"
    return next((f"{DATA}{SEPARATOR}{what}" for end, what in ACTIONS.items() if action.endswith(end)), None)


class _LaterRange:
    """A range that begins after one function and ends with another, also where that fails."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._opened: record_function | None = None

    def opened_after(self, function: Function) -> Function:
        """Wraps the function that the range begins after."""

        def run(*args: Any, **kwargs: Any) -> Any:
            """Runs the function, then opens the range."""
            result = function(*args, **kwargs)
            self._opened = record_function(self.name)
            self._opened.__enter__()
            return result

        return run

    def closed_after(self, function: Function) -> Function:
        """Wraps the function that the range ends with."""

        def run(*args: Any, **kwargs: Any) -> Any:
            """Runs the function, then closes the range."""
            try:
                return function(*args, **kwargs)
            finally:
                self.close()

        return run

    def close(self) -> None:
        """Ends the range where it has begun."""
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None


def _within(name: str) -> Callable[[Function], Function]:
    """Wraps a function in a range."""

    def wrap(function: Function) -> Function:
        """Returns the function, inside its range."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with record_function(name):
                return function(*args, **kwargs)

        return run

    return wrap


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Gives an object another attribute of a name while the context lasts."""
    own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before) if own else delattr(owner, name)


def _hooked(module: nn.Module, label: str) -> AbstractContextManager[None]:
    """Puts a range around each run of a module, also one that breaks off, as recomputation does."""
    opened: list[record_function] = []

    def enter(module: nn.Module, args: Any) -> None:
        opened.append(record_function(label))
        opened[-1].__enter__()

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        opened.pop().__exit__(None, None, None)

    hooks = contextlib.ExitStack()
    for handle in (
        module.register_forward_pre_hook(enter, prepend=True),
        module.register_forward_hook(leave, always_call=True),
    ):
        hooks.callback(handle.remove)
    return hooks  # type: ignore[return-value]
