"""What must hold between the `quant` group and the rest, as far as it shows without the model."""

from collections.abc import Iterator

from loralab.config.model import QuantConfig
from loralab.config.schema import TrainConfig

OWNERS = {
    "compute_dtype": ("nf4", "fp4"),
    "storage_dtype": ("nf4", "fp4"),
    "skip_modules": ("nf4", "fp4", "int8"),
    "int8_threshold": ("int8",),
}
"""Fields and the schemes that read them. `double_quant` is left out: its default is on, and no other scheme
has constants to quantize."""


def quant_faults(config: TrainConfig) -> Iterator[str]:
    """Yields every option of the `quant` group that would change nothing."""
    quant, default = config.quant, QuantConfig()
    for key, schemes in OWNERS.items():
        value = getattr(quant, key)
        if value != getattr(default, key) and quant.name not in schemes:
            shown = f"[{','.join(value)}]" if isinstance(value, list) else value
            yield (
                f"quant.{key}={shown} has no effect with quant={quant.name}; it belongs to "
                f"{', '.join(schemes)}. Leave it out."
            )
    if quant.name == "int8" and config.trainer.strategy == "fsdp":
        yield (
            "trainer.strategy=fsdp cannot split int8 weights, whose constants lie beside them. Use "
            "quant=nf4, quant=none or trainer.strategy=ddp."
        )
    if (
        quant.name == "int8"
        and quant.int8_threshold != default.int8_threshold
        and config.trainer.accelerator == "cpu"
    ):
        yield (
            f"quant.int8_threshold={quant.int8_threshold:g} has no effect on a CPU, which multiplies all "
            "inputs in the compute dtype. Leave it out."
        )
