"""What a builder of adapters may need besides the model and the `lora` group."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AdapterContext:
    """The run around an adapter; every part is optional, and a method that needs a missing one says so."""

    tokenizer: PreTrainedTokenizerBase | None = None
    """Turns token texts into ids."""
    added_token_ids: tuple[int, ...] = ()
    """Ids of `model.added_tokens`, whose embedding rows train with the adapter."""
    total_steps: int | None = None
    """Optimizer steps of the run."""
    base_dir: str | None = None
    """Folder or Hub name of the base's full-precision weights."""
    calibration: Callable[[], Iterable[dict[str, Tensor]]] | None = None
    """Makes batches of `input_ids` and `attention_mask` [batch, seq] of training rows, the same each time."""
