"""What one process asks for and all of them then do after the same step, such as stopping for a signal."""

from collections.abc import Callable

import torch
from torch import Tensor

from loralab.distributed.group import sum_numbers, world_size


class Votes:
    """Questions that each process answers for itself; one yes is enough."""

    def __init__(self) -> None:
        """Starts without a question."""
        self.asked: dict[str, Callable[[], bool]] = {}
        self._passed: set[str] = set()

    def cast(self) -> Tensor:
        """Returns this process's answers, to be summed over all: [questions], 1 for yes."""
        return torch.tensor([float(answer()) for answer in self.asked.values()], dtype=torch.float64)

    def count(self, summed: Tensor) -> None:
        """Takes the sum of the answers of all processes."""
        votes = summed.tolist()
        self._passed = {name for name, number in zip(self.asked, votes, strict=True) if number}

    def hold(self) -> None:
        """Asks all processes now; they must all come here."""
        if self.asked and world_size() > 1:
            self.count(sum_numbers(self.cast()))

    def passed(self, name: str) -> bool:
        """Says whether any process said yes when they were asked last; one alone is asked now."""
        return self.asked[name]() if world_size() == 1 else name in self._passed
