from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from loralab.config.model import LoraConfig, ModelConfig, QuantConfig
from loralab.data.collate import MicroBatch
from loralab.evaluation.generation import GenerationSettings, generate_responses
from loralab.model.adapters.context import AdapterContext
from loralab.model.head import hidden_states, projection
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm, trainable

PROMPTS = ["<|im_start|>user\nCount to five", "one", "What is the capital of France? The capital"]


def base_model(tiny_model_dir: Path):
    config = ModelConfig(path=str(tiny_model_dir))
    return load_base(config, QuantConfig(name="none"), torch.device("cpu"), torch.float32)


def load(tiny_model_dir: Path):
    return attach_adapter(base_model(tiny_model_dir), LoraConfig(r=2), 0).eval()


def greedy(model, tokenizer: PreTrainedTokenizerBase, prompt: str, length: int, stops: set[int]) -> list[int]:
    """One prompt at a time, no cache, no padding."""
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    answer: list[int] = []
    while len(answer) < length:
        token = int(causal_lm(model)(input_ids=ids).logits[0, -1].argmax())
        if token in stops:
            break
        answer.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return answer


def test_batched_answers_equal_one_prompt_at_a_time(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load(tiny_model_dir)
    settings = GenerationSettings(max_new_tokens=12, stop_ids=(2,), batch_size=2)
    done: list[int] = []
    answers = generate_responses(model, tokenizer, PROMPTS, settings, done.append)
    alone = [greedy(model, tokenizer, prompt, 12, {2}) for prompt in PROMPTS]
    assert answers == [tokenizer.decode(ids, skip_special_tokens=True) for ids in alone]
    assert sum(done) == 3


def test_an_answer_ends_before_its_stop_token(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load(tiny_model_dir)
    ids = greedy(model, tokenizer, PROMPTS[0], 8, set())
    place = next(place for place, token in enumerate(ids) if place > 0 and token not in ids[:place])
    settings = GenerationSettings(max_new_tokens=8, stop_ids=(ids[place],), batch_size=1)
    answer = generate_responses(model, tokenizer, PROMPTS[:1], settings)[0]
    assert answer == tokenizer.decode(ids[:place], skip_special_tokens=True)


@pytest.mark.parametrize("method", ["prefix", "prompt", "ptuning", "adalora", "vera", "ia3"])
def test_answers_of_other_methods_follow_the_logits_of_training(
    tiny_model_dir: Path, tokenizer: PreTrainedTokenizerBase, method: str
) -> None:
    lora = LoraConfig(method=method, r=2, virtual_tokens=3)
    base = base_model(tiny_model_dir)
    with torch.no_grad():  # Sharp attention, so that it matters how far away a token stands.
        for name, weight in base.named_parameters():
            weight.mul_(20 if "q_proj" in name or "k_proj" in name else 3 if "proj" in name else 1)
    model = attach_adapter(base, lora, 0, AdapterContext(total_steps=10)).eval()
    torch.manual_seed(0)
    for parameter in trainable(model).values():
        torch.nn.init.normal_(parameter)

    def alone(prompt: str) -> str:
        """No cache, no padding, through the hidden states of the training step."""
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        start = ids.shape[1]
        while ids.shape[1] < start + 8:
            hidden = hidden_states(model, MicroBatch(ids, torch.ones_like(ids), ids))
            token = projection(causal_lm(model))(hidden)[:, -1:].argmax(-1)
            ids = torch.cat([ids, token], dim=1)
        return str(tokenizer.decode(ids[0, start:], skip_special_tokens=True))

    settings = GenerationSettings(max_new_tokens=8, stop_ids=(399,), batch_size=3)
    answers = generate_responses(model, tokenizer, PROMPTS, settings)
    with torch.inference_mode():
        assert answers == [alone(prompt) for prompt in PROMPTS]
    with model.disable_adapter():
        disabled = generate_responses(model, tokenizer, PROMPTS, settings)
        with torch.inference_mode():
            assert disabled == [alone(prompt) for prompt in PROMPTS]
    assert disabled != answers
