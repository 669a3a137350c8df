"""What `loralab plan` works out: the memory of a run on cards of every size."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from loralab.config.method_rules import num_virtual_tokens
from loralab.config.model import QuantConfig
from loralab.config.schema import TrainConfig
from loralab.errors import ModelError
from loralab.model.attention_choice import FLASH, choose_attention
from loralab.model.hardware import choose_dtype, multiplies_bf16
from loralab.model.load import check_length, plan_config, skeleton
from loralab.model.lora import check_adapter
from loralab.model.memory_advice import MOST_SHOWN, Advice, Remedies, advise, allowed_remedies, resized
from loralab.model.memory_map import MemoryMap
from loralab.model.memory_request import QUANTIZED, UNQUANTIZED, MemoryEstimate, MemoryRequest
from loralab.model.prequantized import left_out, prequantized
from loralab.model.quantize import check_skip_modules
from loralab.model.row_paths import num_row_threads
from loralab.optim.state_size import kind_of_state
from loralab.runs.memory import GIB, rss_gib
from loralab.training.memory_plan import AUTO, AUTO_STEP_EXAMPLES, HEADROOM, padded

CARDS_GIB = (8.0, 12.0, 16.0, 24.0, 48.0, 80.0)
"""Sizes of common cards."""
CONTEXT_GIB = 0.5
"""What the CUDA context takes of a card before PyTorch gets any of it; 0.3 to 0.6 with driver and card."""
FOUR_BITS = ("nf4", "fp4")


@dataclass(frozen=True)
class Bare:
    """A model without weights, ready to be estimated."""

    model: PreTrainedModel
    """On the meta device, with the attention that it would run on."""
    quant: QuantConfig
    """How its weights would be stored."""
    num_parameters: int
    """Parameters, without an adapter."""
    notes: tuple[str, ...] = ()
    """What differs from the configuration, in words."""
    is_stored_quantized: bool = False
    """Whether its weights come quantized."""


@dataclass(frozen=True)
class CardPlan:
    """A run on a card."""

    gib: float
    """The size of the card."""
    usable_bytes: int
    """What of it PyTorch gets."""
    rows: int
    """Rows of a micro-batch; with `trainer.batch_size=auto` those that fit here, at least one."""
    peak: int
    """What the run takes, in bytes."""
    largest_tokens: tuple[int, int]
    """Tokens of the largest micro-batch, without and with gradient checkpointing; 0: not even one row."""
    advice: tuple[Advice, ...]
    """Settings with which the run would fit where it does not."""

    @property
    def fits(self) -> bool:
        """Whether the run takes no more than there is."""
        return self.peak <= self.usable_bytes


@dataclass(frozen=True)
class RankPlan:
    """A rank on every card."""

    rank: int
    """The rank."""
    num_trainable: int
    """Parameters that train."""
    largest_tokens: tuple[int, ...]
    """By card: tokens of the largest micro-batch with gradient checkpointing; 0: not even one row."""


@dataclass(frozen=True)
class RunPlan:
    """A run on every card."""

    config: TrainConfig
    bare: Bare
    device_type: str
    """cpu or cuda."""
    request: MemoryRequest
    """With `trainer.batch_size=auto` the micro-batch of the first card that it fits on, else of one row."""
    estimate: MemoryEstimate
    reserved_bytes: int
    """What is taken of the memory before the model loads."""
    cards: tuple[CardPlan, ...]
    ranks: tuple[RankPlan, ...]
    """Empty where the adapter has no rank."""


def plan_device(config: TrainConfig) -> tuple[str, torch.dtype]:
    """Returns the type of device, a GPU unless a CPU is asked for, and the compute dtype there.

    Raises:
        ConfigError: The device cannot compute in the precision.
    """
    is_cpu = config.trainer.accelerator == "cpu"
    device_type = "cpu" if is_cpu else "cuda"
    native = multiplies_bf16(torch.device("cpu")) if is_cpu else True
    return device_type, choose_dtype(config.trainer.precision, device_type, native).dtype


def reserved(device_type: str) -> int:
    """Returns the bytes that are taken before a model loads: a CUDA context, or this process's libraries."""
    return round((CONTEXT_GIB if device_type == "cuda" else rss_gib()) * GIB)


def bare_model(config: TrainConfig, device_type: str, dtype: torch.dtype) -> Bare:
    """Builds the model of a run without weights and checks what the run asks of it.

    Raises:
        LoralabError: The run cannot be.
    """
    model_config = plan_config(config.model)
    check_length(model_config, config.data.max_length, num_virtual_tokens(config.lora))
    quant = config.quant
    notes: tuple[str, ...] = ()
    if (found := prequantized(model_config)) is not None:
        if found.method != "bitsandbytes":
            raise ModelError(
                f"model={config.model.name} is already quantized ({found.label}), whose memory is not known "
                "here. Plan with the unquantized model and quant=nf4 or quant=int8."
            )
        quant, notes = replace(quant, name=found.scheme), (left_out(config.model, quant, found),)
        del model_config.quantization_config
    model = skeleton(config.model, model_config)
    model.set_attn_implementation(attention_name(config, model_config, device_type, dtype))
    check_skip_modules(model, quant)
    check_adapter(model, config.lora)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Bare(model, quant, num_parameters, notes, found is not None)


def attention_name(
    config: TrainConfig, model_config: PreTrainedConfig, device_type: str, dtype: torch.dtype
) -> str:
    """Returns the attention that a run is planned with.

    FlashAttention takes the memory of sdpa, which runs the same kernel, and no card is here to ask for more.
    """
    if device_type == "cuda" and config.model.attention == FLASH:
        return "sdpa"
    here = torch.device("cpu")
    return choose_attention(config.model, model_config, here, dtype, config.data.packing).name


def make_request(
    config: TrainConfig, quant: QuantConfig, dtype: torch.dtype, threads: int = 1
) -> MemoryRequest:
    """Describes a micro-batch of full rows, of which every position is learned.

    Args:
        config: The run; with `trainer.batch_size=auto` the micro-batch has one row.
        quant: How the base is stored.
        dtype: Compute dtype.
        threads: Threads that documents of packed rows are dealt to.
    """
    trainer, width = config.trainer, padded(config.data.max_length)
    is_auto = trainer.batch_size == AUTO
    rows = 1 if is_auto else int(trainer.batch_size)
    if trainer.batch_tokens is not None:
        rows = max(1, trainer.batch_tokens // width)
    step = rows * trainer.accumulation
    if is_auto or trainer.step_examples is not None:
        step = -(-(trainer.step_examples or AUTO_STEP_EXAMPLES) // trainer.num_processes)
        rows = min(rows, step)
    return MemoryRequest(
        quant=quant,
        lora=config.lora,
        dtype=dtype,
        rows=rows,
        width=width,
        num_supervised=rows * width,
        checkpointing=trainer.gradient_checkpointing,
        optimizer=kind_of_state(config.optim),
        documents=(width,) * rows if config.data.packing else None,
        accumulation=-(-step // rows),
        shards=trainer.num_shards,
        threads=threads,
        speed=trainer.speed,
        offload=trainer.offload_activations,
    )


def plan_run(config: TrainConfig, cards: Sequence[float]) -> RunPlan:
    """Works out what a run takes and what of it fits where.

    Args:
        config: The run.
        cards: Sizes in GiB.

    Raises:
        LoralabError: The run cannot be.
    """
    device_type, dtype = plan_device(config)
    reserved_bytes = reserved(device_type)
    bare = bare_model(config, device_type, dtype)
    threads = num_row_threads(bare.model, config, device_type)
    memory = MemoryMap(bare.model, make_request(config, bare.quant, dtype, threads), device_type)
    remedies = allowed_remedies(config, bare.is_stored_quantized, device_type)
    planned = tuple(_plan_card(memory, card, reserved_bytes, remedies) for card in cards)
    shown = next((card for card in planned if card.fits), planned[0])
    request = _with_rows(memory.request, shown.rows)
    return RunPlan(
        config=config,
        bare=bare,
        device_type=device_type,
        request=request,
        estimate=memory.estimate(request),
        reserved_bytes=reserved_bytes,
        cards=planned,
        ranks=tuple(_plan_rank(memory, rank, cards, reserved_bytes) for rank in memory.ranks),
    )


def _plan_card(memory: MemoryMap, card: float, reserved_bytes: int, remedies: Remedies) -> CardPlan:
    request, usable = memory.request, round(card * GIB) - reserved_bytes
    limit, step = HEADROOM * usable, request.rows * request.accumulation
    largest = [memory.largest_rows(limit, request.lora.r, each) for each in (False, True)]
    if remedies.step == "auto":
        request = _with_rows(request, max(1, min(largest[request.checkpointing], step)))
        # The map is lines between traces; as in a run, the last word has the micro-batch itself.
        while request.rows > 1 and memory.estimate(request).peak > limit:
            request = _with_rows(request, request.rows - 1)
    estimate = memory.estimate(request)
    weights = estimate.parts[QUANTIZED] + estimate.parts[UNQUANTIZED]
    advice: list[Advice] = []
    # No setting makes weights smaller that have 4 bits already.
    if estimate.peak > usable > 0 and not (request.quant.name in FOUR_BITS and weights > limit):
        advice = advise(request, memory.nearly, int(limit), remedies)[:MOST_SHOWN]
    tokens = (largest[0] * request.width, largest[1] * request.width)
    return CardPlan(card, usable, request.rows, estimate.peak, tokens, tuple(advice))


def _with_rows(request: MemoryRequest, rows: int) -> MemoryRequest:
    """Cuts the same steps into micro-batches of so many rows."""
    parts = -(-request.rows * request.accumulation // rows)
    return replace(resized(request, rows, request.width), accumulation=parts)


def _plan_rank(memory: MemoryMap, rank: int, cards: Sequence[float], reserved_bytes: int) -> RankPlan:
    limits = [HEADROOM * (card * GIB - reserved_bytes) for card in cards]
    largest = [memory.largest_rows(limit, rank, True) * memory.request.width for limit in limits]
    return RankPlan(rank, memory.at(rank, memory.request.rows, True).num_trainable, tuple(largest))
