"""A step's micro-batches, cut smaller where memory runs out."""

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loralab.data.collate import MicroBatch
from loralab.distributed.group import rank, world_size
from loralab.errors import ModelError

CPU_MESSAGE = "can't allocate memory"
"""What PyTorch says where the operating system refuses memory; there is no class for it."""


class RowTooLarge(ModelError):
    """Memory ran out on a single row, or on several that cannot be split."""

    def __init__(self, rows: int, width: int, reason: str) -> None:
        """Takes the rows, the tokens of each, and what PyTorch said."""
        what = "a single row" if rows == 1 else f"{rows} rows"
        super().__init__(f"memory ran out on {what} of {width:,} tokens: {reason}")
        self.rows, self.width = rows, width


class Halved(NamedTuple):
    """What became of a micro-batch that did not fit."""

    rows: int
    width: int
    """Tokens of each row."""
    limit: int
    """Most tokens of a micro-batch from then on."""

    def __str__(self) -> str:
        """Says it in a line."""
        return (
            f"a micro-batch of {self.rows} rows x {self.width:,} tokens did not fit; from here on they have "
            f"at most {self.limit:,} tokens"
        )


class MicroBatchLimit:
    """The most tokens that have been found to fit at once; nothing is known until memory runs out."""

    def __init__(self) -> None:
        """Starts without a limit."""
        self.tokens: int | None = None
        self.is_fixed = False
        """Whether micro-batches stay as they are, because other processes run the same ones beside them."""
        self._running: MicroBatch | None = None

    def run(
        self, batches: Sequence[MicroBatch], step: Callable[[MicroBatch], Tensor], restart: Callable[[], None]
    ) -> tuple[Tensor, list[Halved]]:
        """Runs a step on each micro-batch and adds up the losses; where memory runs out, all of it again.

        Gradients of a backward pass that broke off have reached some parameters and not others, and taking
        them out again would round. So the whole step starts anew: nothing is copied in steps that fit.

        Args:
            batches: The micro-batches of a step.
            step: Forward and backward of one; returns its loss, detached.
            restart: Drops what the step has gathered so far.

        Returns:
            The sum of the losses, and how micro-batches were halved on the way.

        Raises:
            RowTooLarge: One row does not fit.
        """
        halved: list[Halved] = []
        while True:
            reason = ""
            try:
                return self._run_all(batches, step), halved
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Only here the frames that held the activations are gone.
            rows, width = self._running.input_ids.shape  # type: ignore[union-attr]
            self._running = None
            restart()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if rows == 1 or self.is_fixed:
                raise RowTooLarge(rows, width, reason)
            self.tokens = -(-rows // 2) * width
            halved.append(Halved(rows, width, self.tokens))

    @staticmethod
    def report(halved: Sequence[Halved]) -> Tensor:
        """Returns what became of the last micro-batch that did not fit here, to be summed over all processes.

        Args:
            halved: How micro-batches of a step were halved in this process.
        """
        report = torch.zeros(world_size(), len(Halved._fields), dtype=torch.float64)
        if halved:
            report[rank()] = torch.tensor(halved[-1])
        return report.flatten()

    def share(self, summed: Tensor) -> list[str]:
        """Takes the smallest limit of all processes for this one too; says what did not fit, and where.

        Args:
            summed: The sum of what each process reports.
        """
        rows = summed.long().view(world_size(), -1).tolist()
        found = {process: Halved(*row) for process, row in enumerate(rows) if any(row)}
        limits = [each.limit for each in found.values()]
        self.tokens = min([*limits, *([] if self.tokens is None else [self.tokens])], default=None)
        return [f"process {process}: {each}" for process, each in found.items()]

    def state_dict(self) -> dict[str, Any]:
        """Returns the limit."""
        return {"tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the limit back: a resumed run cuts its steps alike."""
        self.tokens = state["tokens"]

    def _run_all(self, batches: Sequence[MicroBatch], step: Callable[[MicroBatch], Tensor]) -> Tensor:
        losses = []
        for batch in batches:
            for part in split_rows(batch, self.tokens):
                self._running = part
                losses.append(step(part))
        return torch.stack(losses).sum()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Says whether an error means that a GPU or the operating system had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or CPU_MESSAGE in str(error)


def split_rows(batch: MicroBatch, limit: int | None) -> Iterator[MicroBatch]:
    """Cuts a micro-batch into rows of at most `limit` tokens together, at least one; None keeps it."""
    rows, width = batch.input_ids.shape
    num_rows = rows if limit is None else max(1, limit // width)
    if num_rows >= rows:
        yield batch
        return
    for at in range(0, rows, num_rows):
        end = min(rows, at + num_rows)
        parts: dict[str, Any] = {
            name: value[at:end] if isinstance(value, Tensor) else value
            for name, value in batch._asdict().items()
        }
        if batch.bounds is not None:
            first, last = at * width, end * width
            parts["bounds"] = tuple(bound - first for bound in batch.bounds if first <= bound <= last)
        if batch.lengths is not None:
            parts["lengths"] = batch.lengths[at:end]
        yield MicroBatch(**parts)
