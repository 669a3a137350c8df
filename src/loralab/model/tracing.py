"""Which memory a piece of code takes, found by running it on tensors that have shapes and no values.

The code runs on PyTorch's fake tensors. Every storage that comes to be, and its end, is an event; peaks are
counted afterwards, when it is known what each storage was for. What autograd saves for the backward pass is
found that way, not assumed.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HiddenBytes = Callable[..., int]
"""From the arguments of an operator to the bytes that its kernel takes while it runs."""

DEVICE_OF = torch.ops.prim.device.default
"""What asking a fake tensor for its device calls: more than every other call, and it makes nothing."""
MOMENTARY = -1
"""The number of memory that an operator takes and gives back before it returns."""


class Event(NamedTuple):
    """A storage that came to be, or went away."""

    storage: int
    """Its number, from 0, or `MOMENTARY`."""
    delta: int
    """Its bytes, negative where it went away."""
    stage: str
    """What ran at that time."""


class StorageLog(TorchDispatchMode):
    """Logs the storages of all tensors that operators make while it is active.

    Views and results that are written in place add nothing. Tensors that were there before are not counted.
    """

    def __init__(self, hidden: Mapping[Any, HiddenBytes] | None = None) -> None:
        """Starts empty.

        Args:
            hidden: For operators whose kernels take memory that shows in no tensor, how much.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.stage = ""
        self.events: list[Event] = []
        self._hidden = dict(hidden or {})
        self._numbers: dict[int, int] = {}
        self._num_made = 0

    @property
    def alive(self) -> set[int]:
        """Numbers of the storages that are there now."""
        return set(self._numbers.values())

    def number_of(self, tensor: Tensor) -> int | None:
        """Returns the number of a tensor's storage; None where it was not made while this was active."""
        return self._numbers.get(_address(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operator and logs what it made."""
        kwargs = kwargs or {}
        if func is DEVICE_OF:
            return func(*args, **kwargs)
        given = {_address(tensor) for tensor in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if _address(tensor) not in given:
                self._see(tensor)
        if func in self._hidden:
            taken = self._hidden[func](*args, **kwargs)
            self.events += [Event(MOMENTARY, taken, self.stage), Event(MOMENTARY, -taken, self.stage)]
        return result

    def _see(self, tensor: Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._numbers:
            return
        number, size = self._num_made, storage.nbytes()
        self._num_made += 1
        self._numbers[address] = number
        self.events.append(Event(number, size, self.stage))
        weakref.finalize(storage, self._forget, address, number, size)

    def _forget(self, address: int, number: int, size: int) -> None:
        self._numbers.pop(address, None)
        self.events.append(Event(number, -size, self.stage))


def peaks(events: Sequence[Event], kind_of: Callable[[int], str]) -> dict[str, Counter[str]]:
    """Finds for each stage the moment with the most memory.

    Args:
        events: What came and went, in order.
        kind_of: From the number of a storage to what it is for.

    Returns:
        By stage, in the order in which they first ran, the bytes of each kind at that moment.
    """
    live: Counter[str] = Counter()
    highest: dict[str, Counter[str]] = {}
    for event in events:
        live[kind_of(event.storage)] += event.delta
        if event.stage not in highest or live.total() > highest[event.stage].total():
            highest[event.stage] = live.copy()
    return highest


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors of what an operator takes or returns, which is nothing but these containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
