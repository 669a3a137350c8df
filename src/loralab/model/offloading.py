"""Inputs of recomputed layers that wait in host memory while the GPU needs them not.

Gradient checkpointing keeps the input of each layer for the backward pass. Here each goes to host memory as
its layer runs, and comes back before the layer runs again (arXiv:1910.02054, section 6.1), beside the
arithmetic: while one layer is computed anew, the input of the layer before it is on its way.
"""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

RECOMPUTE = "_gradient_checkpointing_func"
"""Where a module of transformers keeps the function that runs it and forgets its activations."""


class Copy(NamedTuple):
    """A copy that has been ordered, and may not have begun."""

    data: Any
    """What is copied to; not to be read before `Link.wait`."""
    done: Any
    """What `Link.wait` takes."""


class Link(Protocol):
    """The way between a device and host memory. Copies run in the order in which they are asked for."""

    def takes(self, tensor: Tensor) -> bool:
        """Whether a tensor is one to move."""

    def to_host(self, tensor: Tensor) -> Copy:
        """Begins to copy a tensor, as all work ordered so far leaves it."""

    def to_device(self, host: Any, device: torch.device) -> Copy:
        """Begins to copy back what `to_host` gave, into memory that is free once all work so far is done."""

    def wait(self, done: Any) -> None:
        """Lets all that is ordered from now on begin only when a copy has ended."""


class CudaLink:
    """Copies on a stream of their own, between a GPU and page-locked memory.

    The allocator of page-locked memory gives none of it out again before the copies that use it have ended;
    the memory on the GPU is held by `Offload` for as long as a copy uses it.
    """

    def __init__(self) -> None:
        """Starts without a stream."""
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def takes(self, tensor: Tensor) -> bool:
        """Whether it is on a GPU."""
        return tensor.is_cuda

    def to_host(self, tensor: Tensor) -> Copy:
        """Begins to copy a tensor to page-locked memory."""
        return self._copy(torch.empty_like(tensor, device="cpu", pin_memory=True), tensor, tensor.device)

    def to_device(self, host: Any, device: torch.device) -> Copy:
        """Begins to copy a tensor back."""
        # Memory of the current stream, on which it is used and given up.
        return self._copy(torch.empty_like(host, device=device), host, device)

    def wait(self, done: Any) -> None:
        """Lets the current stream wait, not this process."""
        device, event = done
        torch.cuda.current_stream(device).wait_event(event)

    def _copy(self, to: Tensor, source: Tensor, device: torch.device) -> Copy:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        stream = self._streams[device]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            to.copy_(source, non_blocking=True)
        return Copy(to, (device, stream.record_event()))


class _Stored:
    """A tensor in host memory, and the one that left before it."""

    def __init__(self, host: Any, device: torch.device, previous: "weakref.ref[_Stored] | None") -> None:
        self.host, self.device = host, device
        self._previous = previous

    @property
    def previous(self) -> "_Stored | None":
        """The one before it, where a backward pass still needs that."""
        return None if self._previous is None else self._previous()


class _Moving(NamedTuple):
    """A tensor on its way."""

    stored: _Stored
    copy: Copy
    on_device: Tensor
    """Its memory on the device, which the copy reads or writes."""


class Offload:
    """Hooks for what autograd saves: out in the forward pass, back in the backward pass.

    Of all that it takes at most two are on the device: in the forward pass the one that leaves, in the
    backward pass the one in use and the one that comes next. Memory on the device that a copy reads or
    writes is held here until later work has been told to wait for the copy.
    """

    def __init__(self, link: Link) -> None:
        """Starts with nothing on its way."""
        self._link = link
        self._leaving: _Moving | None = None
        self._coming: _Moving | None = None
        self._newest: weakref.ref[_Stored] | None = None

    @torch.no_grad()
    def pack(self, tensor: Tensor) -> Tensor | _Stored:
        """Sends a tensor away."""
        if not self._link.takes(tensor):
            return tensor
        self._settle()
        copy = self._link.to_host(tensor)
        stored = _Stored(copy.data, tensor.device, self._newest)
        self._leaving = _Moving(stored, copy, tensor)
        self._newest = weakref.ref(stored)
        return stored

    @torch.no_grad()
    def unpack(self, packed: Tensor | _Stored) -> Tensor:
        """Returns a tensor, and sends for the one that left before it."""
        if isinstance(packed, Tensor):
            return packed
        here = (each for each in (self._leaving, self._coming) if each is not None and each.stored is packed)
        moving = next(here, None) or self._fetch(packed)
        self._link.wait(moving.copy.done)
        self._settle()
        if (previous := packed.previous) is not None:
            self._coming = self._fetch(previous)
        return moving.on_device

    def _fetch(self, stored: _Stored) -> _Moving:
        copy = self._link.to_device(stored.host, stored.device)
        return _Moving(stored, copy, copy.data)

    def _settle(self) -> None:
        """Gives up what is on its way, after all that could use its memory has been told to wait."""
        for moving in (self._leaving, self._coming):
            if moving is not None:
                self._link.wait(moving.copy.done)
        self._leaving = self._coming = None


def offload_inputs(model: PreTrainedModel, link: Link) -> None:
    """Lets the layers of a model that recompute keep their inputs at the other end of a link.

    Args:
        model: A model whose gradient checkpointing is on.
        link: Where to.
    """
    offload = Offload(link)
    for module in model.modules():
        if (recompute := getattr(module, RECOMPUTE, None)) is not None:
            setattr(module, RECOMPUTE, _offloading(recompute, offload))


def _offloading(recompute: Callable[..., Any], offload: Offload) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        """Runs a layer; inside it hooks of the checkpoint apply, so its arguments alone are offloaded."""
        with saved_tensors_hooks(offload.pack, offload.unpack):
            return recompute(*args, **kwargs)

    return run
