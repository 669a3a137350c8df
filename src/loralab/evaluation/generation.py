"""Greedy answers to prompts, in batches."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from peft import PeftModel, PeftType
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from loralab.model.head import has_virtual_tokens
from loralab.model.lora import causal_lm


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate."""

    max_new_tokens: int
    """Longest answer."""
    stop_ids: tuple[int, ...]
    """Tokens that end an answer."""
    batch_size: int
    """Prompts at once."""


@torch.inference_mode()
def generate_responses(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    settings: GenerationSettings,
    advance: Callable[[int], None] = lambda num_done: None,
) -> list[str]:
    """Answers rendered prompts greedily, without the stop token.

    Args:
        model: The model to ask.
        tokenizer: Its tokenizer.
        prompts: Rendered texts that end with the generation prompt.
        settings: Length, stop tokens, batch size.
        advance: Called with the number of prompts just answered.
    """
    config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        eos_token_id=list(settings.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
    )
    # Prompts of like length together: less padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for at in range(0, len(order), settings.batch_size):
        chosen = order[at : at + settings.batch_size]
        inputs = tokenizer(
            [prompts[index] for index in chosen],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(model.device)
        with _contiguous_head_inputs(causal_lm(model)):
            output = _generate(model, inputs["input_ids"], inputs["attention_mask"], config)
        for index, ids in zip(chosen, output.tolist(), strict=True):
            kept = _until_stop(ids, settings.stop_ids)
            answers[index] = str(tokenizer.decode(kept, skip_special_tokens=True))
        advance(len(chosen))
    return answers


def _generate(
    model: PeftModel, input_ids: Tensor, attention_mask: Tensor, config: GenerationConfig
) -> Tensor:
    """Returns the new tokens [batch, new] of prompts padded on the left.

    PEFT puts virtual input tokens before the padding, so that they stand farther from the text than in
    training and answers depend on the other prompts of a batch; here they stand right before the text.
    """
    if has_virtual_tokens(model) and model.active_peft_config.peft_type != PeftType.PREFIX_TUNING:
        embeddings, mask = _virtual_tokens_before_text(model, input_ids, attention_mask)
        output = causal_lm(model).generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=mask, generation_config=config
        )
        return cast(Tensor, output)
    output = model.generate(input_ids=input_ids, attention_mask=attention_mask, generation_config=config)
    return cast(Tensor, output[:, input_ids.shape[1] :])


def _virtual_tokens_before_text(
    model: PeftModel, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns embeddings [batch, virtual + seq, hidden] and mask of padding, virtual tokens and text."""
    words = causal_lm(model).get_input_embeddings()(input_ids)
    virtual = model.get_prompt(len(words)).to(words.dtype)
    num_virtual, width = virtual.shape[1], virtual.shape[1] + words.shape[1]
    place = torch.arange(width, device=words.device).expand(len(words), width)
    padding = (attention_mask == 0).sum(dim=1, keepdim=True)
    # Where in [virtual; padding; text] each place takes its embedding from.
    source = torch.where(place < padding, place + num_virtual, place - padding)
    source = torch.where(place < padding + num_virtual, source, place)
    embeddings = torch.cat([virtual, words], dim=1)
    return embeddings.gather(1, source[..., None].expand_as(embeddings)), (place >= padding).long()


@contextlib.contextmanager
def _contiguous_head_inputs(model: PreTrainedModel) -> Iterator[None]:
    """Makes the output head multiply each prompt's last hidden state once.

    That state is a strided slice of the prompt's; PyTorch would expand the head's weights to the batch
    size to multiply it: gigabytes, and half of the time of a batch of short prompts on a CPU.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def _until_stop(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in stop_ids]
    return list(ids[: ends[0]] if ends else ids)
