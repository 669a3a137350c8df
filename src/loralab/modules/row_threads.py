"""Forward and backward passes of the rows of a micro-batch side by side, on the threads of a CPU.

PyTorch puts all threads on one operator at a time: they wait for each other after every one, and small ones
keep a single thread busy. Here each thread, or group of threads, takes rows of its own through the model.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from loralab.data.collate import MicroBatch
from loralab.data.shares import share_out
from loralab.losses.parts import LossParts

T = TypeVar("T")


class RowThreads:
    """The threads of a CPU, each group of them with rows of its own."""

    def __init__(self, is_on: bool, target_cost: float = 0.0) -> None:
        """Starts no thread yet.

        Args:
            is_on: Whether rows may be shared out at all.
            target_cost: What a token that is learned takes more, as a multiple of what every token takes.
        """
        self.is_on, self._target_cost = is_on, target_cost
        self._in_turn = False
        self._pool: ThreadPoolExecutor | None = None

    def shares(self, batch: MicroBatch) -> list[MicroBatch]:
        """Returns what may run side by side of a micro-batch: all of it where that gains nothing."""
        return share_out(batch, torch.get_num_threads(), self._target_cost) if self.is_on else [batch]

    def losses(
        self,
        item_losses: Callable[[MicroBatch], LossParts],
        shares: Sequence[MicroBatch],
        parameters: Sequence[nn.Parameter],
    ) -> LossParts:
        """Returns the losses of several shares as one; their backward passes run side by side too.

        Args:
            item_losses: What a share costs.
            shares: Micro-batches.
            parameters: All that gets gradients. Those of the shares add up in order, so that the same rows
                give the same bits.
        """
        parts = self.run([partial(item_losses, share) for share in shares])
        losses: Tensor = _Joined.apply(self, [part.losses for part in parts], *parameters)  # type: ignore[no-untyped-call]
        return LossParts(losses, *(_joined(column) for column in list(zip(*parts, strict=True))[1:]))

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Runs tasks side by side with as many threads each; returns what they return, in order.

        Raises:
            Exception: What the first that failed has raised, when all have ended.
        """
        if len(tasks) == 1 or self._in_turn:
            return [task() for task in tasks]
        num_threads = torch.get_num_threads()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(num_threads, "rows")
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        each = max(1, num_threads // len(tasks))
        futures = [self._pool.submit(_run, task, each, modes) for task in tasks]
        # What one of them holds must be free before memory is asked for again.
        wait(futures)
        return [future.result() for future in futures]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs tasks one after another on the calling thread while the context lasts."""
        self._in_turn = True
        try:
            yield
        finally:
            self._in_turn = False


class _Joined(torch.autograd.Function):
    """Losses of several graphs as one tensor, with a backward pass that runs theirs side by side."""

    @staticmethod
    def forward(ctx: Any, threads: RowThreads, losses: list[Tensor], *parameters: Tensor) -> Tensor:
        """Returns all losses in one: [num]."""
        ctx.threads, ctx.losses, ctx.parameters = threads, losses, parameters
        return torch.cat([each.detach() for each in losses])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Returns the gradients of the parameters, added up."""
        losses, ctx.losses = ctx.losses, None
        factors = gradients[0].split([len(each) for each in losses])
        tasks = [
            partial(torch.autograd.grad, each, ctx.parameters, factor, allow_unused=True)
            for each, factor in zip(losses, factors, strict=True)
        ]
        del losses
        found = [list(gradients) for gradients in ctx.threads.run(tasks)]
        return None, None, *(_taken_together(found, place) for place in range(len(ctx.parameters)))


def _run(task: Callable[[], T], num_threads: int, modes: tuple[bool, bool]) -> T:
    """Runs a task as the thread that asked for it would; modes and thread counts are each thread's own."""
    torch.set_num_threads(num_threads)
    with_grad, in_inference = modes
    with torch.inference_mode(in_inference), torch.set_grad_enabled(with_grad):
        return task()


def _joined(column: Sequence[Tensor | None]) -> Tensor | None:
    present = [each for each in column if each is not None]
    return torch.cat(present) if present else None


def _taken_together(gradients: list[list[Tensor | None]], place: int) -> Tensor | None:
    """Takes the gradients of a parameter out of those of all shares, and adds them up."""
    present = [each for each in (of_share[place] for of_share in gradients) if each is not None]
    for of_share in gradients:
        of_share[place] = None
    return reduce(torch.add, present) if present else None
