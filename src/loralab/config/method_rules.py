"""What must hold between `lora.method` and the rest, as far as it shows without the model."""

import dataclasses
from collections.abc import Iterator

from loralab.config.model import LoraConfig
from loralab.config.schema import TrainConfig

LORA_FIELDS = frozenset(field.name for field in dataclasses.fields(LoraConfig)) - {
    "method", "initial_rank", "virtual_tokens", "prompt_text",
}  # fmt: skip

FIELDS: dict[str, frozenset[str]] = {
    "lora": LORA_FIELDS,
    "adalora": frozenset({"r", "alpha", "dropout", "targets", "layers", "modules_to_save", "initial_rank"}),
    "vera": frozenset({"r", "dropout", "targets", "layers", "modules_to_save"}),
    "ia3": frozenset({"targets", "layers", "modules_to_save"}),
    "prefix": frozenset({"virtual_tokens"}),
    "prompt": frozenset({"virtual_tokens", "prompt_text"}),
    "ptuning": frozenset({"virtual_tokens"}),
}
"""Fields of the `lora` group that each method reads."""

VIRTUAL_TOKENS = ("prefix", "prompt", "ptuning")
"""Methods that put learned tokens before the text."""


def method_faults(config: TrainConfig) -> Iterator[str]:
    """Yields every setting that the adapter's method ignores, and every one that it cannot be joined with."""
    method = config.lora.method
    if method not in FIELDS:
        return  # Named among the unknown choices already.
    yield from _ignored_fields(config.lora)
    if method == "adalora" and (config.lora.initial_rank or config.lora.r + 1) <= config.lora.r:
        yield (
            f"lora.initial_rank={config.lora.initial_rank} leaves nothing to prune to "
            f"lora.r={config.lora.r}. Use a larger one, or null for one and a half times r."
        )
    if method in VIRTUAL_TOKENS and config.data.packing:
        yield (
            f"data.packing=true joins documents in a row, and lora.method={method} puts its learned tokens "
            "before the row, where only the first document sees them. Set data.packing=false."
        )
    if method == "prefix" and config.trainer.gradient_checkpointing:
        every = str(config.trainer.gradient_checkpointing).lower()
        yield (
            f"trainer.gradient_checkpointing={every} drops the cache that carries the prefix of "
            "lora.method=prefix. Set it to false, or use lora.method=prompt."
        )
    if method != "lora" and config.model.added_tokens:
        yield (
            f"model.added_tokens need embedding rows that train, which lora.method={method} has not. "
            "Use lora.method=lora."
        )


def num_virtual_tokens(lora: LoraConfig) -> int:
    """Returns how many learned tokens stand before each row; they take positions of the model."""
    return lora.virtual_tokens if lora.method in VIRTUAL_TOKENS else 0


def _ignored_fields(lora: LoraConfig) -> Iterator[str]:
    default = LoraConfig(method=lora.method, r=lora.r)
    default.r = LoraConfig.r
    for field in dataclasses.fields(LoraConfig):
        key, value = field.name, getattr(lora, field.name)
        if key == "method" or key in FIELDS[lora.method] or value == getattr(default, key):
            continue
        readers = [method for method, fields in FIELDS.items() if key in fields]
        shown = (
            value if isinstance(value, str | int | float) else str(value).replace("'", "").replace(" ", "")
        )
        yield (
            f"lora.{key}={shown} has no effect with lora.method={lora.method}; it belongs to "
            f"{', '.join(readers)}. Leave it out."
        )


def is_padding_free(config: TrainConfig) -> bool:
    """Whether a run lays padded rows end to end, where its model can."""
    is_padded = not config.data.packing and config.lora.method not in VIRTUAL_TOKENS
    return config.trainer.speed.padding_free and is_padded
