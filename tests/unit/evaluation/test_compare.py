from transformers import PreTrainedTokenizerBase

from loralab.config.schema import EvalConfig
from loralab.data.masking import Example, encode, make_example
from loralab.data.records import Conversation, Message
from loralab.data.templating import render, special_tokens
from loralab.evaluation.compare import _template_prefix, generation_settings

THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def example(tokenizer: PreTrainedTokenizerBase, answer: str) -> Example:
    conversation = Conversation((Message("user", "hi"), Message("assistant", answer)), "rows", 1)
    return make_example(encode(tokenizer, [render(tokenizer, conversation)])[0], conversation)


def test_an_empty_thought_of_the_template_is_no_part_of_the_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    thinking = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    thinking.chat_template = THINKS
    assert _template_prefix(thinking, example(thinking, '{"a": 1}')) == "<think>\n\n</think>\n\n"
    assert _template_prefix(tokenizer, example(tokenizer, '{"a": 1}')) == ""


def test_generation_stops_at_the_learned_token_and_a_quarter_after_the_longest_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    examples = [example(tokenizer, "a" * length) for length in (4, 30)]
    special = special_tokens(tokenizer).values()
    longest = max(item.num_supervised for item in examples)
    settings = generation_settings(examples, EvalConfig(batch_size=3), special)
    assert settings.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert settings.max_new_tokens == -(-longest * 5 // 4)
    assert generation_settings(examples, EvalConfig(max_new_tokens=7), special).max_new_tokens == 7


def test_answer_that_was_cut_ends_in_no_stop_token(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = example(tokenizer, "Paris is the capital")
    cut = Example(whole.input_ids[:-4], whole.labels[:-4], whole.conversation)
    assert cut.labels[-1] not in (-100, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    settings = generation_settings([whole, cut], EvalConfig(), special_tokens(tokenizer).values())
    assert settings.stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
