"""The memory of a run before it loads anything: what its largest micro-batch takes, and what would fit."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel

from loralab.config.method_rules import is_padding_free
from loralab.config.model import QuantConfig
from loralab.config.schema import TrainConfig
from loralab.data.collate import PAD_MULTIPLE
from loralab.data.cutting import MicroBatchSize
from loralab.data.layout import Layout
from loralab.data.packing import document_bounds
from loralab.data.prepare import PreparedData
from loralab.data.store import common_prefix_of, supervised_of
from loralab.errors import ConfigError
from loralab.model.attention_choice import choose_attention, runs_without_padding
from loralab.model.load import load_config, skeleton
from loralab.model.memory import estimate_memory
from loralab.model.memory_advice import Remedies, allowed_remedies, check_memory
from loralab.model.memory_request import MemoryEstimate, MemoryRequest
from loralab.model.prequantized import Prequantized, prequantized
from loralab.model.row_paths import num_row_threads, shares_prefix
from loralab.optim.state_size import kind_of_state
from loralab.runs.memory import GIB, available_memory, rss_gib

PROCESS = "libraries and data (measured)"
"""The part of a CPU run's memory that is there before the model loads."""
HEADROOM = 0.9
"""Share of the memory that a step may fill where its size is chosen."""
AUTO, AUTO_STEP_EXAMPLES = "auto", 16
"""`trainer.batch_size=auto`, and the examples of a step where nothing else says how many."""
STANDS_FOR = {"eetq": "int8"}
"""What bitsandbytes stores alike for bases quantized by other methods; nf4 for those not named."""


@dataclass(frozen=True)
class LargestBatch:
    """The micro-batch of a run that takes the most memory."""

    rows: int
    """Rows."""
    width: int
    """Tokens of a row, padding included."""
    num_supervised: int
    """Positions with logits."""
    documents: tuple[int, ...] | None
    """Lengths of the documents in packed rows, padding as one of its own; None where rows are padded."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each padded row; None where rows are packed."""


class MemoryPlan:
    """Estimates the memory of a run, and of runs that differ from it in a few settings."""

    def __init__(
        self, config: TrainConfig, data: PreparedData, compute: tuple[torch.device, torch.dtype], pad_id: int
    ) -> None:
        """Takes a run before its weights load: what its process holds by now is libraries and data.

        Args:
            config: The run.
            data: Its examples.
            compute: Device and compute dtype.
            pad_id: Token to pad with.
        """
        self.config, self.data, self.pad_id = config, data, pad_id
        self.device, self.dtype = device, _ = compute
        self.process_bytes = round(rss_gib() * GIB) if device.type == "cpu" else 0
        self.available_bytes = self._find_available()
        """What the run may take, its own process included; read once, as the weights count as needed."""
        self._latest: tuple[MemoryRequest, MemoryEstimate] | None = None

    @cached_property
    def model(self) -> PreTrainedModel:
        """The base without weights."""
        (model_config, _), packing = self._architecture, self.config.data.packing
        model = skeleton(self.config.model, model_config)
        chosen = choose_attention(self.config.model, model_config, self.device, self.dtype, packing)
        model.set_attn_implementation(chosen.name)
        return model

    @property
    def stored(self) -> Prequantized | None:
        """How the weights of the base are stored already; None for ordinary weights."""
        return self._architecture[1]

    @property
    def quant(self) -> QuantConfig:
        """How the base will be held: as configured, or as it is stored already."""
        if (found := self.stored) is None:
            return self.config.quant
        is_known = found.method == "bitsandbytes"
        name = found.scheme if is_known else STANDS_FOR.get(found.method, "nf4")
        return replace(self.config.quant, name=name)

    @property
    def remedies(self) -> Remedies:
        """Which settings may be advised where the run does not fit."""
        return allowed_remedies(self.config, self.stored is not None, self.device.type)

    @cached_property
    def _architecture(self) -> tuple[PreTrainedConfig, Prequantized | None]:
        """The model's config without how its weights are stored, and that."""
        model_config = load_config(self.config.model)
        if (found := prequantized(model_config)) is not None:
            del model_config.quantization_config
        return model_config, found

    def _find_available(self) -> int:
        if self.config.trainer.memory_gib is not None:
            return round(self.config.trainer.memory_gib * GIB)
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        trainer = self.config.trainer
        return available_memory() * trainer.num_nodes // trainer.num_processes + self.process_bytes

    def request(
        self, size: MicroBatchSize, layout: Layout, config: TrainConfig | None = None
    ) -> MemoryRequest:
        """Describes the micro-batch of a run that takes the most memory.

        Args:
            size: How a step is cut.
            layout: How examples fill rows.
            config: Another adapter or way to keep activations; None is the run's own.
        """
        config = config or self.config
        batch = largest_batch(layout, supervised_of(self.data.train.examples), size)
        # A group of examples is a micro-batch of its own, however many rows it has.
        num_units = 1 if layout.is_grouped else batch.rows
        return MemoryRequest(
            quant=self.quant,
            lora=config.lora,
            dtype=self.dtype,
            rows=batch.rows,
            width=batch.width,
            num_supervised=max(1, batch.num_supervised),
            checkpointing=config.trainer.gradient_checkpointing,
            optimizer=kind_of_state(config.optim),
            documents=batch.documents,
            lengths=batch.lengths if self._is_padding_free(config) else None,
            shared_prefix=self._shared_prefix if shares_prefix(self.model, config) else 0,
            accumulation=-(-rows_per_step(config, layout) // (num_units * config.trainer.num_processes)),
            shards=config.trainer.num_shards,
            threads=num_row_threads(self.model, config, self.device.type),
            speed=config.trainer.speed,
            offload=config.trainer.offload_activations,
        )

    @cached_property
    def _shared_prefix(self) -> int:
        return common_prefix_of(self.data.train.examples)

    def _is_padding_free(self, config: TrainConfig) -> bool:
        architecture, _ = self._architecture
        return is_padding_free(config) and runs_without_padding(architecture, self.device, self.dtype)

    def estimate(self, request: MemoryRequest) -> MemoryEstimate:
        """Estimates the peak of a request; on a CPU with what the process holds already."""
        if self._latest is None or self._latest[0] != request:
            estimated = estimate_memory(self.model, request, self.device.type)
            if self.process_bytes:
                estimated = replace(estimated, parts={**estimated.parts, PROCESS: self.process_bytes})
            self._latest = (request, estimated)
        return self._latest[1]

    def check(self, request: MemoryRequest) -> MemoryEstimate:
        """Estimates a request and refuses it where it does not fit.

        Raises:
            ConfigError: It does not; the message names settings that would fit.
        """
        if self.process_bytes >= self.available_bytes:
            raise ConfigError(
                f"not enough memory: libraries and data alone take {self.process_bytes / GIB:.2f} GiB "
                "(measured) before the model loads, and "
                f"trainer.memory_gib={self.config.trainer.memory_gib:g} allows less. The run needs about "
                f"{self.estimate(request).peak / GIB:.2f} GiB: raise trainer.memory_gib, or leave it out to "
                "take what is free."
            )
        return check_memory(request, self.estimate, self.available_bytes, self.remedies)


def rows_per_step(config: TrainConfig, layout: Layout) -> int:
    """Rows of one optimizer step: examples, packed rows, or groups of examples."""
    trainer = config.trainer
    if layout.is_grouped:
        return trainer.accumulation * trainer.num_processes
    if trainer.step_examples is not None:
        return trainer.step_examples
    if trainer.batch_size == AUTO:
        return max(AUTO_STEP_EXAMPLES, trainer.num_processes)
    return int(trainer.batch_size) * trainer.accumulation * trainer.num_processes


def rows_per_process(config: TrainConfig, layout: Layout) -> int:
    """Most rows that a process takes of one step: no micro-batch has more."""
    return min(-(-rows_per_step(config, layout) // config.trainer.num_processes), layout.num_units)


def rows_at_once(config: TrainConfig, layout: Layout) -> int:
    """Rows of a micro-batch, or groups of examples; one where `trainer.batch_size=auto` is to find them."""
    if layout.is_grouped or config.trainer.batch_size == AUTO:
        return 1
    return min(int(config.trainer.batch_size), rows_per_process(config, layout))


def largest_batch(layout: Layout, supervised: NDArray[np.int64], size: MicroBatchSize) -> LargestBatch:
    """Finds the micro-batch that takes the most memory.

    Args:
        layout: How the examples of an epoch fill rows.
        supervised: [num_examples], tokens to learn of each.
        size: How a step is cut.
    """
    if layout.pack_length is not None:
        count = min(size.num_rows(layout.pack_length), layout.num_units)
        rows = _by_documents(layout)
        bounds = document_bounds([layout.lengths[row].tolist() for row in rows[:count]], layout.pack_length)
        starts = np.cumsum([0, *(len(row) for row in rows[:-1])])
        learned = int(np.sort(np.add.reduceat(supervised[np.concatenate(rows)], starts))[-count:].sum())
        documents = tuple(end - start for start, end in pairwise(bounds))
        return LargestBatch(count, layout.pack_length, learned, documents)
    if layout.is_grouped:
        groups = [layout.unit(0, number) for number in range(layout.num_units)]
        group = max(groups, key=lambda group: len(group) * padded(layout.lengths[group].max()))
    else:
        longest_first = layout.mixture[np.argsort(-layout.lengths[layout.mixture], kind="stable")]
        group = longest_first[: size.num_rows(padded(layout.lengths[longest_first[0]]))]
    width = padded(layout.lengths[group].max())
    lengths = tuple(layout.lengths[group].tolist())
    # Rows that are counted by tokens may be more elsewhere, where they are shorter.
    is_counted = size.rows is not None and not layout.is_grouped
    taken = lengths if is_counted else (width,) * len(group)
    return LargestBatch(len(group), width, int(supervised[group].sum()), None, taken)


@lru_cache(maxsize=2)
def _by_documents(layout: Layout) -> list[NDArray[np.int64]]:
    """Returns the packed rows, all as wide, from those with the fewest copies of what all begin with."""
    return sorted((layout.unit(0, number) for number in range(layout.num_units)), key=len)


def padded(length: int | np.int64) -> int:
    """Rounds a length up to the width that a row of it gets."""
    return -(-int(length) // PAD_MULTIPLE) * PAD_MULTIPLE
