"""Tiny random models and a tokenizer trained on a few sentences: no download, milliseconds per step."""

import json
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before PyTorch is imported: tests that run beside each other take a core each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from loralab.data.templating import set_chat_template
from loralab.model.load import quiet_libraries

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "What is the capital of France? The capital of France is Paris.",
    "Count to five: one two three four five.",
    "You are a helpful assistant. Reply with one JSON call. user assistant system",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first: the others run beside it."""
    items.sort(key=lambda item: item.path.name != "test_default.py")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder of public data beside the checkout is absent")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    quiet_libraries()


def build_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level BPE: any text encodes, and character offsets are exact."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|endoftext|>"
    )
    set_chat_template(tokenizer, "chatml")
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights, saved with its tokenizer as a model folder."""
    folder = tmp_path_factory.mktemp("model") / "tiny-llama"
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty prompt/completion rows of different lengths."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    numbers = ["one", "two", "three", "four", "five"]
    rows = [
        {
            "prompt": f"Count to {numbers[i % 5]} from {i}",
            "completion": f"{' '.join(numbers[: i % 5 + 1])} {i}",
        }
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
