"""Hidden states of the whole sequence, logits only where they are needed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import PreTrainedModel

from loralab.config.speed import SpeedConfig
from loralab.data.collate import PAD_MULTIPLE, MicroBatch
from loralab.data.shared_prefix import Shortened, without_repeats
from loralab.errors import ModelError
from loralab.losses.liger import nll_in_place, runs_liger
from loralab.losses.sft import NllAndGradient, chunk_positions, plain_nll, tiled_nll, token_nll
from loralab.model.attention import document_arguments, shares_beginnings
from loralab.model.lora import causal_lm
from loralab.model.messages import first_line

Projection = Callable[[Tensor], Tensor]
"""From hidden states [num, hidden] to logits [num, vocab]."""
KNOWN_HEADS = ("gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3")
"""Model types of transformers' own whose heads `projection` is tested on: no run checks them again."""
NUM_CHECKED = 5
"""Tokens that the others are checked on."""
LEAST_TOLERANCE = 1e-4
"""Share of the largest logit by which two ways of summing may differ in float32."""


def hidden_states(model: PeftModel | PreTrainedModel, batch: MicroBatch) -> Tensor:
    """Runs the decoder without its output head.

    Args:
        model: An adapted model, or a causal language model; for packed rows one that
            `enable_document_attention` has prepared.
        batch: Padded or packed rows, [batch, seq].

    Returns:
        [batch, seq, hidden], of the text alone where virtual tokens stand before it.
    """
    base = causal_lm(model) if isinstance(model, PeftModel) else model
    short: Shortened | None = None
    arguments: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if isinstance(model, PeftModel) and has_virtual_tokens(model):
        arguments = virtual_token_arguments(model, batch.input_ids, batch.attention_mask)
    elif batch.bounds is not None:
        short = without_repeats(batch) if shares_beginnings(base) else None
        rows, bounds = short or batch, short.bounds if short else batch.bounds
        arguments |= document_arguments(base, bounds, rows.input_ids.device, short is not None)
        arguments |= {"input_ids": rows.input_ids, "position_ids": rows.position_ids}
    output = base.base_model(use_cache=False, **arguments)
    hidden: Tensor = output.last_hidden_state
    if short is None:
        return hidden[:, -batch.input_ids.shape[1] :]
    # On a CPU its gradient adds up in order, as that of indexing would not.
    whole: Tensor = hidden[0].index_select(0, short.places.flatten())
    return whole.view(*batch.input_ids.shape, -1)


def has_virtual_tokens(model: PeftModel) -> bool:
    """Says whether learned tokens stand before each row now: not inside `disable_adapter`."""
    return model.active_peft_config.is_prompt_learning and model.has_active_enabled_adapter


def virtual_token_arguments(model: PeftModel, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    """Returns the arguments with which a decoder sees a model's virtual tokens before each row.

    Prefix tuning hands their keys and values over as a cache (arXiv:2101.00190, section 4.2), the others
    put embeddings before those of the text (arXiv:2104.08691, section 2). Positions count on from them.

    Args:
        model: A model that `has_virtual_tokens`.
        input_ids: [batch, seq]
        attention_mask: [batch, seq]
    """
    rows = len(input_ids)
    ahead = attention_mask.new_ones(rows, model.active_peft_config.num_virtual_tokens)
    arguments: dict[str, Any] = {"attention_mask": torch.cat([ahead, attention_mask], dim=1)}
    if model.active_peft_config.peft_type == PeftType.PREFIX_TUNING:
        return arguments | {"input_ids": input_ids, "past_key_values": model.get_prompt(rows)}
    words = causal_lm(model).get_input_embeddings()(input_ids)
    return arguments | {"inputs_embeds": torch.cat([model.get_prompt(rows).to(words.dtype), words], dim=1)}


def projection(model: PreTrainedModel) -> Projection:
    """Returns the model's map from hidden states to logits, with the scaling that some families apply.

    Gemma 2 and 3 cap logits softly (arXiv:2408.00118, section 2), Granite divides them by a constant
    and Cohere multiplies them.
    """
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)

    def project(hidden: Tensor) -> Tensor:
        """Maps hidden states [num, hidden] to logits [num, vocab]."""
        logits: Tensor = head(hidden)
        if scale != 1.0:
            logits = logits * scale
        return cap * torch.tanh(logits / cap) if cap is not None else logits

    return project


def has_frozen_head(model: PreTrainedModel) -> bool:
    """Says whether nothing in the output head learns, as a whole or by an adapter."""
    return not any(parameter.requires_grad for parameter in model.get_output_embeddings().parameters())


def target_nll(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    speed: SpeedConfig,
    device_type: str | None = None,
    kernel: NllAndGradient = nll_in_place,
) -> Tensor:
    """Returns the negative log likelihood of targets by the model's output head, in float32.

    Args:
        model: The base.
        hidden: [num, hidden]
        targets: [num]
        speed: Which faster ways it may go.
        device_type: cpu or cuda; None is where the hidden states are.
        kernel: What runs in the place of the plain loss where `speed.liger` lets it.

    Returns:
        [num]
    """
    device_type = device_type or hidden.device.type
    is_cpu, num = device_type == "cpu", len(targets)
    own = tiled_nll if is_cpu else plain_nll
    # oneDNN keeps over a MiB for every number of rows that it has multiplied with the head.
    if is_cpu and (filler := -num % PAD_MULTIPLE):
        hidden, targets = F.pad(hidden, (0, 0, 0, filler)), F.pad(targets, (0, filler))
    losses = token_nll(
        hidden,
        targets,
        projection(model),
        chunk_positions(model.get_output_embeddings().weight.shape[0], device_type),
        is_frozen=speed.fused_head and has_frozen_head(model),
        nll_and_gradient=kernel if runs_liger(speed.liger, device_type) else own,
    )
    return losses[:num]


@torch.no_grad()
def check_projection(model: PreTrainedModel) -> None:
    """Runs a few tokens both ways, so that no loss is ever taken of other logits than the model's own.

    Args:
        model: A base without adapter, loaded, in evaluation mode.

    Raises:
        ModelError: Its logits are not `projection` of its hidden states, or it has none.
    """
    kind = model.config.model_type
    if kind in KNOWN_HEADS and type(model).__module__.startswith("transformers."):
        return
    ids = torch.arange(NUM_CHECKED, device=model.device).unsqueeze(0)
    mask = torch.ones_like(ids)
    try:
        expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        found = projection(model)(hidden_states(model, MicroBatch(ids, mask, ids)))
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"models of type {kind!r} cannot be run as decoder and output head: {first_line(error)}"
        ) from error
    tolerance = max(LEAST_TOLERANCE, 2 * torch.finfo(expected.dtype).eps, 2 * torch.finfo(model.dtype).eps)
    if not _agree(found, expected, tolerance):
        raise ModelError(
            f"models of type {kind!r} turn hidden states into logits in a way that loralab does not know, so "
            "losses would be wrong. Take a model of another family."
        )


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    if found.shape != expected.shape:
        return False
    largest = float(expected[expected.isfinite()].abs().max())
    return torch.allclose(found.float(), expected.float(), rtol=0, atol=tolerance * largest, equal_nan=True)
