from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from loralab.config.schema import LoraConfig, ModelConfig, QuantConfig
from loralab.evaluation.generation import GenerationSettings, generate_responses
from loralab.model.load import load_base
from loralab.model.lora import attach_adapter, causal_lm

PROMPTS = ["<|im_start|>user\nCount to five", "one", "What is the capital of France? The capital"]


def load(tiny_model_dir: Path):
    config = ModelConfig(path=str(tiny_model_dir))
    base = load_base(config, QuantConfig(name="none"), torch.device("cpu"), torch.float32)
    return attach_adapter(base, LoraConfig(r=2), 0).eval()


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
