from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.unit.model.tiny_models import build
from transformers import PreTrainedTokenizerBase

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext
from loralab.model.adapters.tokens import token_ids, trainable_rows
from loralab.model.lora import attach_adapter, save_adapter, trainable


def test_tokens_are_named_by_vocabulary_or_text(tokenizer: PreTrainedTokenizerBase) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    letter = tokenizer.convert_tokens_to_ids("Ġ")
    assert token_ids(["<|im_end|>", " "], tokenizer) == [end, letter]
    with pytest.raises(ConfigError, match=r"'Zebra' is 5 tokens.*model.added_tokens=\[Zebra\]"):
        token_ids(["Zebra"], tokenizer)
    with pytest.raises(ConfigError, match="needs the model's tokenizer"):
        token_ids(["a"], None)


def test_an_untied_head_trains_the_rows_too() -> None:
    context, lora = AdapterContext(added_token_ids=(5, 3)), LoraConfig()
    assert trainable_rows(build("llama"), lora, context, []) == {
        "model.embed_tokens": [3, 5],
        "lm_head": [3, 5],
    }
    assert trainable_rows(build("gemma2"), lora, context, []) == {"model.embed_tokens": [3, 5]}
    assert trainable_rows(build("llama"), lora, context, ["lm_head"]) == {"model.embed_tokens": [3, 5]}
    assert trainable_rows(build("llama"), lora, AdapterContext(), []) is None


def test_a_head_with_a_bias_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"has a bias.*lora.modules_to_save=\[model.embed_tokens,lm_head\]"):
        trainable_rows(build("phi"), LoraConfig(), AdapterContext(added_token_ids=(3,)), [])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "gpt2"])
def test_only_the_rows_of_the_tokens_change(
    family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    base = build(family)
    adapted = attach_adapter(base, LoraConfig(r=4), 0, AdapterContext(added_token_ids=(3, 5)))
    rows = {name: parameter for name, parameter in trainable(adapted).items() if "trainable_tokens" in name}
    assert len(rows) == (2 if family == "llama" else 1)
    for parameter in rows.values():
        torch.nn.init.normal_(parameter)
    expected = build(family)
    with torch.no_grad():
        for place, values in (
            (expected.get_input_embeddings(), next(iter(rows.values()))),
            (expected.get_output_embeddings(), list(rows.values())[-1]),
        ):
            place.weight[[3, 5]] = values
    ids = torch.tensor([[1, 3, 9, 5]])
    tuned = adapted.eval()(ids).logits
    torch.testing.assert_close(tuned, expected(ids).logits, rtol=1e-5, atol=1e-5)
    weights = {name: parameter.detach().clone() for name, parameter in trainable(adapted).items()}
    save_adapter(adapted, tokenizer, weights, tmp_path)
    plain = PeftModel.from_pretrained(build(family), str(tmp_path)).eval()
    torch.testing.assert_close(plain(ids).logits, tuned, rtol=1e-5, atol=1e-5)


def test_embeddings_tied_to_the_head_train_as_one(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    for named in ("lm_head", "embed_tokens"):
        adapted = attach_adapter(build("gemma2"), LoraConfig(r=4, modules_to_save=[named]), 0)
        whole = [name for name in trainable(adapted) if "modules_to_save" in name]
        assert len(whole) == 1
        torch.nn.init.normal_(trainable(adapted)[whole[0]])
        ids = torch.tensor([[1, 3, 9, 5]])
        tuned = adapted.eval()(ids).logits
        expected = build("gemma2")
        expected.get_input_embeddings().weight.data = trainable(adapted)[whole[0]].data
        torch.testing.assert_close(tuned, expected(ids).logits, rtol=1e-5, atol=1e-5)
        weights = {name: parameter.detach().clone() for name, parameter in trainable(adapted).items()}
        save_adapter(adapted, tokenizer, weights, tmp_path / named)
        plain = PeftModel.from_pretrained(build("gemma2"), str(tmp_path / named)).eval()
        torch.testing.assert_close(plain(ids).logits, tuned, rtol=1e-5, atol=1e-5)
