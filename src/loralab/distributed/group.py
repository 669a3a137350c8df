"""What the processes of a run exchange; a run of one process exchanges nothing."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _abort_process_group, _get_default_store

from loralab.distributed.place import Place, check_own_gpus, place_of
from loralab.errors import AlreadyTold, ConfigError, LoralabError, ProcessLost

Value = TypeVar("Value")

MEETING = timedelta(minutes=10)
"""How long the processes wait for each other at the beginning, and for an exchange between GPUs."""
PATIENCE = timedelta(days=1)
"""How long one waits for what another does alone, such as reading data; a process that dies ends the wait at
once, because its connections close."""
BROKEN = ("gloo", "Gloo", "NCCL", "Connection closed", "Connection reset")
"""What errors of exchanges speak of; PyTorch has no class for those of gloo."""
LEAVING, POLL_S = "leaving", 0.1
"""Under which name processes that are about to end are counted, and how often one looks."""
CONTROL: "ContextVar[dist.ProcessGroup | None]" = ContextVar("control", default=None)
"""The group for small things, on the CPU, while the processes are joined."""


@contextlib.contextmanager
def joined(device_type: str) -> Iterator[Place]:
    """Joins the other processes of the run while the context lasts; does nothing where there is one.

    Args:
        device_type: `cpu` or `cuda`: where gradients lie.

    Raises:
        ConfigError: The others do not come, or share a GPU with this one.
    """
    here = place_of(os.environ)
    if here.world_size == 1 or dist.is_initialized():
        yield here
        return
    # Lightning reads what torchrun sets, whoever has started the processes.
    os.environ.update(here.to_environment())
    if device_type == "cuda":
        torch.cuda.set_device(_own_gpu(here))
    try:
        dist.init_process_group(
            "gloo" if device_type == "cpu" else "cpu:gloo,cuda:nccl",
            init_method=f"tcp://{here.address}:{here.port}",
            rank=here.rank,
            world_size=here.world_size,
            timeout=MEETING,
        )
        control = CONTROL.set(dist.new_group(backend="gloo", timeout=PATIENCE))
    except (RuntimeError, ValueError) as error:  # what PyTorch raises for timeouts and wrong addresses
        raise ConfigError(
            f"process {here.rank} of {here.world_size} does not find the others at "
            f"{here.address}:{here.port}: {str(error).splitlines()[0]}. Start every machine with the same "
            "address and port, within 10 minutes."
        ) from error
    leave = _abort_process_group
    try:
        if device_type == "cuda":
            gpus = gathered(_name_of_gpu())
            agree(lambda: check_own_gpus(gpus))
        yield here
        leave = dist.destroy_process_group
    finally:
        CONTROL.reset(control)
        # To finish takes all; where one has failed, NCCL would wait for it.
        with contextlib.suppress(RuntimeError):
            leave()


def _own_gpu(here: Place) -> int:
    """Returns the number of the GPU of a process; where it sees a single one, that should be its own."""
    visible = torch.cuda.device_count()
    if here.local_rank >= visible > 1:
        raise ConfigError(
            f"{here.local_world_size} processes on a machine with {visible} GPUs: start one for each "
            f"(trainer.devices={visible})."
        )
    return min(here.local_rank, visible - 1)


def _name_of_gpu() -> str:
    """Returns what no other GPU is called."""
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    return f"{socket.gethostname()} {gpu.name} {gpu.uuid}"


def world_size() -> int:
    """Returns the number of processes of the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def place() -> Place:
    """Returns the place of this process among all that have joined."""
    return place_of(os.environ) if dist.is_initialized() else Place()


def is_first() -> bool:
    """Says whether this is the process that writes files and speaks."""
    return rank() == 0


def sum_gradients(gradients: list[Tensor]) -> None:
    """Adds up gradients over all processes in place, in one exchange.

    Args:
        gradients: Float32 tensors of any shapes, the same in every process.

    Raises:
        ProcessLost: Another process ended.
    """
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    with noticing_the_lost():
        dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    shaped = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
    torch._foreach_copy_(gradients, shaped)


def sum_numbers(numbers: Tensor) -> Tensor:
    """Returns numbers added up over all processes, on the CPU.

    They travel on the connections that notice at once when a process dies, also where gradients do not.

    Args:
        numbers: [num], float64.

    Raises:
        ProcessLost: Another process ended.
    """
    summed = numbers.to("cpu", torch.float64, copy=True)
    if world_size() > 1:
        with noticing_the_lost():
            dist.all_reduce(summed, group=CONTROL.get())
    return summed


def gathered(value: Value) -> list[Value]:
    """Returns the value of each process, in all of them.

    Raises:
        ProcessLost: Another process ended.
    """
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with noticing_the_lost():
        dist.all_gather_object(values, value, group=CONTROL.get())
    return values


def on_first(action: Callable[[], Value]) -> Value:
    """Runs an action in the first process and returns its result in all of them.

    Raises:
        AlreadyTold: In the others, where it failed: the first one says why.
        ProcessLost: The first process ended.
    """
    if world_size() == 1:
        return action()
    told: list[Any] = [None, False]
    error: BaseException | None = None
    if is_first():
        try:
            told = [action(), False]
        except BaseException as raised:
            error, told = raised, [None, True]
    try:
        with noticing_the_lost():
            dist.broadcast_object_list(told, src=0, group=CONTROL.get())
    finally:
        if error is not None:
            raise error
    if told[1]:
        raise AlreadyTold("the first process says why")
    result: Value = told[0]
    return result


def agree(check: Callable[[], object]) -> None:
    """Runs a check in every process; where any of them fails, all do, and the first one says why.

    Raises:
        LoralabError: In the first process: what the check of one of them said.
        AlreadyTold: In the others.
    """
    fault: LoralabError | None = None
    try:
        check()
    except LoralabError as error:
        fault = error
    faults = [each for each in gathered(fault) if each is not None]
    if faults:
        raise faults[0] if is_first() else AlreadyTold("the first process says why")


def first_then_others(action: Callable[[], Value]) -> Value:
    """Runs an action that leaves files behind in the first process, then in the first of each other machine,
    then in the rest, which find the files; returns the result of each.

    Raises:
        AlreadyTold: In the others, where it failed in the first.
        ProcessLost: Another process ended.
    """
    made: list[Value] = []
    on_first(lambda: made.append(action()))
    if not made and place().local_rank == 0:
        made.append(action())
    wait_for_all()
    return made[0] if made else action()


def wait_for_all() -> None:
    """Waits until every process is here.

    Raises:
        ProcessLost: Another process ended.
    """
    if world_size() > 1:
        with noticing_the_lost():
            dist.barrier(group=CONTROL.get())


def wait_to_leave(longest: timedelta | None = None) -> None:
    """Waits until every process is about to end, or for so long; others may be amid an exchange.

    A barrier that is given up would keep this process from ending, so the waiting is done by counting.

    Raises:
        ProcessLost: Another process ended.
    """
    if world_size() == 1:
        return
    with noticing_the_lost():
        store, begun = _get_default_store(), time.monotonic()
        store.add(LEAVING, 1)
        if longest is None:
            wait_for_all()
            return
        while store.add(LEAVING, 0) < world_size() and time.monotonic() < begun + longest.total_seconds():
            time.sleep(POLL_S)


@contextlib.contextmanager
def noticing_the_lost() -> Iterator[None]:
    """Turns the error of an exchange that broke off into `ProcessLost`.

    Raises:
        ProcessLost: Another process ended.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _lost(error) from error


def broken_exchange(error: RuntimeError) -> ProcessLost | None:
    """Returns what an error of an exchange means; None for other errors, and where there is one process."""
    if isinstance(error, torch.OutOfMemoryError) or world_size() == 1:
        return None
    return _lost(error) if any(word in str(error) for word in BROKEN) else None


def _lost(error: RuntimeError) -> ProcessLost:
    # NCCL says first where it failed, and last why.
    first, *others = [line.strip()[:160] for line in str(error).splitlines() if line.strip()] or [""]
    return ProcessLost(f"another process of the run ended ({'; '.join([first, *others[-1:]])})")
