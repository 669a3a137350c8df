# ruff: noqa: RUF001 - the full-width bars are DeepSeek's own.
"""Tiny byte-level tokenizers with the special tokens of the model families."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from loralab.data.templating import set_chat_template

CHATML = ("", "<|im_end|>", ("<|endoftext|>", "<|im_start|>"))
LLAMA_3 = ("<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"))
FAMILIES = {
    "chatml": CHATML,
    "qwen2_5": CHATML,
    "qwen3": CHATML,
    "llama2": ("<s>", "</s>", ()),
    "llama3": LLAMA_3,
    "mistral": (
        "<s>",
        "</s>",
        (
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
    ),
    "gemma": ("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
    "phi3": ("<s>", "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "phi4": ("<|endoftext|>", "<|im_end|>", ("<|im_start|>", "<|im_sep|>")),
    "zephyr": ("<s>", "</s>", ()),
    "vicuna": ("<s>", "</s>", ()),
    "alpaca": ("<s>", "</s>", ()),
    "deepseek": (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
    ),
}
CORPUS = ["USER: one two ASSISTANT: three four. Be brief, please. Hello there. So long."]


def build(bos: str, eos: str, others: tuple[str, ...]) -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [token for token in (bos, eos, *others) if token]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    named = {"bos_token": bos} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, **named)


@pytest.fixture(scope="session")
def family() -> Callable[[str], PreTrainedTokenizerBase]:
    """Builds the tokenizer of a family once, with its bundled template; tests must not change it."""
    built: dict[str, PreTrainedTokenizerBase] = {}

    def get(name: str) -> PreTrainedTokenizerBase:
        if name not in built:
            tokenizer = build(*FAMILIES[name])
            set_chat_template(tokenizer, name)
            built[name] = tokenizer
        return built[name]

    return get


@pytest.fixture(scope="session")
def bare_tokenizer() -> Callable[..., PreTrainedTokenizerBase]:
    """Builds a tokenizer without a chat template from bos, eos and further special tokens."""
    return build
