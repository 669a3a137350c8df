"""Hidden states of the whole sequence, logits only where they are needed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from loralab.data.collate import MicroBatch
from loralab.model.attention import document_arguments

Projection = Callable[[Tensor], Tensor]
"""From hidden states [num, hidden] to logits [num, vocab]."""


def hidden_states(model: PreTrainedModel, batch: MicroBatch) -> Tensor:
    """Runs the decoder without its output head.

    Args:
        model: A causal language model (the base inside PEFT, adapters included); for packed rows one
            that `enable_document_attention` has prepared.
        batch: Padded or packed rows, [batch, seq].

    Returns:
        [batch, seq, hidden]
    """
    arguments: dict[str, Any] = {"attention_mask": batch.attention_mask}
    if batch.bounds is not None:
        arguments = document_arguments(model, batch.bounds, batch.input_ids.device)
        arguments["position_ids"] = batch.position_ids
    output = model.base_model(input_ids=batch.input_ids, use_cache=False, **arguments)
    hidden: Tensor = output.last_hidden_state
    return hidden


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
