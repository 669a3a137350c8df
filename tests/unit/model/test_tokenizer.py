import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ModelError
from loralab.model.load import load_base, load_config
from loralab.model.tokenizer import added_token_ids, check_vocabulary, load_tokenizer

CPU = torch.device("cpu")


def save_llama(
    folder: Path, tokenizer: PreTrainedTokenizerBase, num_rows: int, **changes: Any
) -> ModelConfig:
    """A Llama with any number of embedding rows beside the tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=num_rows, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=0, **changes,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelConfig(name="small", path=str(folder))


def load(config: ModelConfig, quant: str = "none") -> Any:
    return load_base(config, QuantConfig(name=quant), CPU, torch.float32)


def test_a_missing_padding_token_is_taken_from_what_there_is(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((tiny_model_dir / "config.json").read_text())
    bare = type(tokenizer).from_pretrained(tiny_model_dir)
    bare.pad_token = None
    bare.save_pretrained(tmp_path)
    loaded = load_tokenizer(ModelConfig(path=str(tmp_path)))
    assert (loaded.pad_token, loaded.eos_token) == ("<|im_end|>", "<|im_end|>")


def test_added_tokens_are_whole_and_only_markup_is_special(tiny_model_dir: Path) -> None:
    plain = load_tokenizer(ModelConfig(path=str(tiny_model_dir)))
    config = ModelConfig(path=str(tiny_model_dir), added_tokens=["<|call|>", "zork", "zork"])
    tokenizer = load_tokenizer(config)
    ids = tokenizer("a zork<|call|>", add_special_tokens=False).input_ids
    assert ids[-2:] == [len(plain) + 1, len(plain)]
    assert added_token_ids(tokenizer, config) == [len(plain), len(plain) + 1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a zork"


def test_a_token_that_is_there_already_keeps_its_id_and_row(tiny_model_dir: Path) -> None:
    config = ModelConfig(path=str(tiny_model_dir), added_tokens=["<|im_end|>"])
    tokenizer = load_tokenizer(config)
    assert added_token_ids(tokenizer, config) == [tokenizer.eos_token_id]
    plain = load(ModelConfig(path=str(tiny_model_dir))).get_input_embeddings().weight
    assert torch.equal(load(config).get_input_embeddings().weight, plain)


def test_a_tokenizer_larger_than_the_embeddings_names_the_tokens_and_the_fix(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    grown = type(tokenizer).from_pretrained(save_path(tokenizer, tmp_path / "tokenizer"))
    grown.add_tokens(["<a>", "<b>"])
    config = save_llama(tmp_path / "model", grown, len(tokenizer))
    model_config = load_config(config)
    with pytest.raises(ModelError) as raised:
        check_vocabulary(load_tokenizer(config), model_config, config)
    assert str(raised.value) == (
        f"the tokenizer of model=small has 2 tokens more than the {len(tokenizer)} rows of the embeddings: "
        """<a>, <b>. Add rows for them, which then train: model.added_tokens='["<a>","<b>"]'."""
    )
    config.added_tokens = ["<a>", "<b>"]
    check_vocabulary(load_tokenizer(config), model_config, config)
    assert load(config).get_input_embeddings().weight.shape[0] == len(tokenizer) + 2


def save_path(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_added_rows_start_as_the_mean_and_the_others_stay(
    tied: bool, quant: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = save_llama(tmp_path, tokenizer, len(tokenizer), tie_word_embeddings=tied)
    before = load(config, quant)
    config.added_tokens = ["<|x|>", "<|y|>"]
    after = load(config, quant)
    for old, new in (
        (before.get_input_embeddings().weight, after.get_input_embeddings().weight),
        (before.get_output_embeddings().weight, after.get_output_embeddings().weight),
    ):
        assert torch.equal(new[:-2], old)
        torch.testing.assert_close(new[-2:], old.mean(dim=0, keepdim=True).expand(2, -1))
    is_tied = after.get_output_embeddings().weight is after.get_input_embeddings().weight
    assert is_tied is tied
    assert after.config.vocab_size == len(tokenizer) + 2
    logits = after(input_ids=torch.tensor([[len(tokenizer) + 1]])).logits
    assert logits.shape == (1, 1, len(tokenizer) + 2)


def test_rows_that_lay_unused_are_taken_before_new_ones(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    num_own = len(tokenizer)
    config = save_llama(tmp_path, tokenizer, num_own + 10)
    before = load(config).get_input_embeddings().weight
    config.added_tokens = ["<|x|>"]
    after = load(config).get_input_embeddings().weight
    assert after.shape == before.shape
    torch.testing.assert_close(after[num_own], before[:num_own].mean(dim=0))
    others = torch.arange(num_own + 10) != num_own
    assert torch.equal(after[others], before[others])


def test_loading_again_gives_the_same_rows(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = save_llama(tmp_path, tokenizer, len(tokenizer))
    config.added_tokens = ["<|x|>"]
    first = load(config).state_dict()
    torch.manual_seed(123)
    again = load(config).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_bias_of_a_head_grows_with_it(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 1}
    model = GPTJForCausalLM(GPTJConfig(vocab_size=len(tokenizer), **sizes))
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    grown = load(ModelConfig(path=str(tmp_path), added_tokens=["<|x|>"])).lm_head.bias
    assert torch.equal(grown[:-1], model.lm_head.bias)
    torch.testing.assert_close(grown[-1], model.lm_head.bias.mean())


def test_a_slow_tokenizer_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_dir, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] != "ByT5Tokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with pytest.raises(ModelError, match="has no fast tokenizer"):
        load_tokenizer(ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "holds no tokenizer (tokenizer.json or "),
        ("{}", "cannot be read: it lacks 'added_tokens'. Get its files again."),
    ],
    ids=["none", "broken"],
)
def test_a_folder_without_a_tokenizer_says_so(
    tiny_model_dir: Path, tmp_path: Path, content: str | None, says: str
) -> None:
    (tmp_path / "config.json").write_bytes((tiny_model_dir / "config.json").read_bytes())
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
        settings = (tiny_model_dir / "tokenizer_config.json").read_bytes()
        (tmp_path / "tokenizer_config.json").write_bytes(settings)
    with pytest.raises(ModelError, match=re.escape(says)):
        load_tokenizer(ModelConfig(path=str(tmp_path)))


def test_a_tokenizer_of_another_model_is_not_to_be_added_token_by_token(tiny_model_dir: Path) -> None:
    config = ModelConfig(name="small", path=str(tiny_model_dir))
    described = load_config(config)
    described.vocab_size = 300
    with pytest.raises(ModelError, match="So many mean another model's tokenizer: give the one that belongs"):
        check_vocabulary(load_tokenizer(config), described, config)
