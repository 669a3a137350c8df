"""How many processes train a run, and who starts them.

PyTorch is imported where it is needed: the process that only starts others does without.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence

from loralab.config.load import JOB, job_number, task_overrides
from loralab.config.schema import TrainConfig, TrainerConfig
from loralab.distributed.launch import LAUNCHER, end_with_launcher, launch
from loralab.distributed.place import Place, place_of
from loralab.errors import ConfigError
from loralab.training.resume import reopen

FLAGS = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")
"""Hydra's flags that a job of a multirun hands on to its processes."""


def run_training(config: TrainConfig) -> None:
    """Trains a run in as many processes as `trainer.devices` says: starts them, or is one of them.

    Raises:
        LoralabError: Something the user must change.
        Interrupted: A signal came; the message says how to continue.
        SystemExit: A process that was started failed; it has said why.
    """
    end_with_launcher(os.environ)
    here = place_of(os.environ)
    if config.dry_run and here.rank > 0:
        return  # the first process plans for all
    if here.world_size > 1:
        check_place(config.trainer, here)
        if job_number() is not None and LAUNCHER not in os.environ:
            raise ConfigError("-m does not go with torchrun or SLURM: start each combination by itself.")
        config = in_processes(config, here.local_world_size, here.num_nodes)
    else:
        config = in_processes(config, num_devices(config.trainer), config.trainer.num_nodes)
        if not config.dry_run and (code := start_others(config)) is not None:
            if code:
                raise SystemExit(code)
            return
    from loralab.distributed.group import joined
    from loralab.model.hardware import resolve_device
    from loralab.training.fit import train

    if config.dry_run:
        train(config)
        return
    with joined(resolve_device(config.trainer.accelerator).type):
        train(config)


def in_processes(config: TrainConfig, devices: int, num_nodes: int) -> TrainConfig:
    """Returns the config with the number of processes as it is."""
    trainer = dataclasses.replace(config.trainer, devices=devices, num_nodes=num_nodes)
    return dataclasses.replace(config, trainer=trainer)


def start_others(config: TrainConfig) -> int | None:
    """Trains in new processes and returns their exit code; None where this one suffices.

    Raises:
        ConfigError: There are to be several machines, or the run to go on with does not suit.
    """
    resumed = reopen(config, task_overrides()) if config.resume is not None else None
    trainer = resumed.config.trainer if resumed else config.trainer
    if trainer.num_nodes > 1:
        raise ConfigError(several_machines(trainer.num_nodes, trainer.devices))
    if trainer.devices == 1:
        return None
    job = job_number()
    return launch(child_command(sys.argv), trainer.devices, {} if job is None else {JOB: str(job)})


def num_devices(trainer: TrainerConfig) -> int:
    """Returns the processes of one machine; `auto` is one for each GPU."""
    if trainer.devices != "auto":
        return int(trainer.devices)
    import torch

    from loralab.model.hardware import resolve_device

    return torch.cuda.device_count() if resolve_device(trainer.accelerator).type == "cuda" else 1


def several_machines(num_nodes: int, num_devices: int) -> str:
    """Says how to start a run on several machines."""
    return (
        f"trainer.num_nodes={num_nodes}: start the run on every machine, with\n"
        f"  torchrun --nnodes {num_nodes} --nproc-per-node {num_devices} --node-rank NUMBER "
        "--master-addr HOST --master-port 29500 train.py ...\n"
        "or let SLURM do it with srun (docs/several_machines.md)."
    )


def check_place(trainer: TrainerConfig, here: Place) -> None:
    """Refuses processes that were started otherwise than the config says.

    Raises:
        ConfigError: The numbers differ.
    """
    asked = {"devices": trainer.devices, "num_nodes": trainer.num_nodes}
    found = {"devices": here.local_world_size, "num_nodes": here.num_nodes}
    for key, value in asked.items():
        if value not in ("auto", 1, found[key]):
            raise ConfigError(
                f"trainer.{key}={value}, but {found[key]} were started. Start as many, or leave the key out."
            )


def child_command(argv: Sequence[str]) -> list[str]:
    """Returns the command of each process: this one's, or of a multirun that of the job alone.

    Args:
        argv: Script and arguments of this process.
    """
    if job_number() is None:
        return [sys.executable, *argv]
    flags, words = [], list(argv[1:])
    for at, word in enumerate(words):
        if word.partition("=")[0] in FLAGS:
            flags += [word] if "=" in word else words[at : at + 2]
    return [sys.executable, argv[0], *flags, *task_overrides()]
