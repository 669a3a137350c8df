"""What needs a GPU in the `trainer` group, and what these options need of each other."""

from collections.abc import Iterator

from loralab.config.schema import TrainConfig, TrainerConfig


def gpu_faults(config: TrainConfig) -> Iterator[str]:
    """Yields what shows without a look at the machine."""
    trainer = config.trainer
    if trainer.offload_activations and not trainer.gradient_checkpointing:
        yield (
            "trainer.offload_activations=true moves what gradient checkpointing keeps, and "
            "trainer.gradient_checkpointing=false keeps nothing of the kind. Set the latter to true."
        )
    if trainer.speed.liger is True and not trainer.speed.fused_head:
        yield (
            "trainer.speed.liger=true finds the gradient of the loss while the logits are there, and "
            "trainer.speed.fused_head=false computes them twice. Leave one of them out."
        )
    if trainer.accelerator == "cpu":
        yield from faults_without_gpu(trainer)


def faults_without_gpu(trainer: TrainerConfig) -> Iterator[str]:
    """Yields what a CPU cannot do."""
    if trainer.offload_activations:
        yield (
            "trainer.offload_activations=true moves activations from a GPU to the host's memory, and here "
            "there is no GPU (trainer=low_memory sets it). Use trainer.offload_activations=false."
        )
    if trainer.speed.liger is True:
        yield (
            "trainer.speed.liger=true runs a kernel for GPUs, and here there is no GPU. Use "
            "trainer.speed.liger=auto."
        )
