"""What the model reads and which characters of it are learned, against texts written out by hand."""

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from loralab.data.records import Conversation, Message, PreferencePair, ToolCall
from loralab.data.templating import Rendered, Renderer, apply_template, render, special_tokens
from loralab.errors import DataError

LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CHATML_TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
CHATML_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
THINK_ON_LAST_TURN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + CHATML_PROMPT
)
STRIPS_EARLIER_THINKING = (
    "{% for m in messages %}{% set said = m['content'].split('</think>')[-1] %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] if loop.last else said) + '<|im_end|>\n' }}"
    "{% endfor %}" + CHATML_PROMPT
)

CAPITALS = (
    ("user", "Capital of France?"),
    ("assistant", "Paris."),
    ("user", "And of Italy?"),
    ("assistant", "Rome."),
)


def conversation(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns), "rows.jsonl", 1)


def with_template(
    tokenizer: PreTrainedTokenizerBase, template: str, *special: str, bos: str = "", eos: str = ""
) -> PreTrainedTokenizerBase:
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"bos_token": bos or changed.bos_token, "eos_token": eos or changed.eos_token})
    changed.add_tokens(list(special), special_tokens=True)
    changed.chat_template = template
    return changed


def learned(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> list[str]:
    rendered = render(tokenizer, conversation(*turns))
    return [rendered.text[start:end] for start, end in rendered.spans]


def fault(tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str]) -> str:
    with pytest.raises(DataError) as error:
        render(tokenizer, conversation(*turns))
    return str(error.value)


def test_chatml_learns_each_answer_with_its_end_and_nothing_of_the_user(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rendered = render(tokenizer, conversation(*CAPITALS))
    assert rendered.text == (
        "<|im_start|>user\nCapital of France?<|im_end|>\n"
        "<|im_start|>assistant\nParis.<|im_end|>\n"
        "<|im_start|>user\nAnd of Italy?<|im_end|>\n"
        "<|im_start|>assistant\nRome.<|im_end|>\n"
    )
    assert learned(tokenizer, *CAPITALS) == ["Paris.<|im_end|>", "Rome.<|im_end|>"]


def test_system_prompt_is_read_but_not_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = (("system", "Be brief."), *CAPITALS[:2])
    assert render(tokenizer, conversation(*turns)).text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nCapital of France?<|im_end|>\n"
        "<|im_start|>assistant\nParis.<|im_end|>\n"
    )
    assert learned(tokenizer, *turns) == ["Paris.<|im_end|>"]


def test_span_starts_where_the_generation_prompt_ends(tokenizer: PreTrainedTokenizerBase) -> None:
    rendered = render(tokenizer, conversation(*CAPITALS[:2]))
    prompt = apply_template(tokenizer, conversation(CAPITALS[0]).messages, generation_prompt=True)
    assert prompt == "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert rendered.spans == ((len(prompt), len(prompt) + len("Paris.<|im_end|>")),)


def test_repeated_answers_get_a_span_each(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = (("user", "Is 2 even?"), ("assistant", "yes"), ("user", "Is 4 even?"), ("assistant", "yes"))
    first = len("<|im_start|>user\nIs 2 even?<|im_end|>\n<|im_start|>assistant\n")
    one_turn = first + len("yes<|im_end|>\n")
    rendered = render(tokenizer, conversation(*turns))
    # Both exchanges have the same length, so the second span lies one exchange further.
    length = len("yes<|im_end|>")
    assert rendered.spans == ((first, first + length), (one_turn + first, one_turn + first + length))
    assert learned(tokenizer, *turns) == ["yes<|im_end|>", "yes<|im_end|>"]


def test_answer_that_repeats_the_question_is_learned_once(tokenizer: PreTrainedTokenizerBase) -> None:
    assert learned(tokenizer, ("user", "Paris."), ("assistant", "Paris.")) == ["Paris.<|im_end|>"]
    rendered = render(tokenizer, conversation(("user", "Paris."), ("assistant", "Paris.")))
    assert rendered.spans[0][0] == len("<|im_start|>user\nParis.<|im_end|>\n<|im_start|>assistant\n")


def test_answer_that_holds_an_end_of_turn_token_is_learned_to_its_real_end(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert learned(tokenizer, ("user", "a"), ("assistant", "x<|im_end|>y")) == ["x<|im_end|>y<|im_end|>"]


def test_answer_keeps_white_space_that_the_template_keeps(tokenizer: PreTrainedTokenizerBase) -> None:
    assert learned(tokenizer, ("user", "a"), ("assistant", "  b\n")) == ["  b\n<|im_end|>"]


def test_template_that_trims_is_accepted(tokenizer: PreTrainedTokenizerBase) -> None:
    trimming = CHATML_TURN.replace("m['content']", "m['content'] | trim")
    changed = with_template(tokenizer, "{% for m in messages %}" + trimming + "{% endfor %}" + CHATML_PROMPT)
    turns = (("user", " a "), ("assistant", " b c \n"), ("user", "d"), ("assistant", "\te"))
    assert learned(changed, *turns) == ["b c<|im_end|>", "e<|im_end|>"]


def test_template_without_generation_prompt_learns_the_header_the_model_must_write(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, "{% for m in messages %}" + CHATML_TURN + "{% endfor %}")
    assert learned(changed, ("user", "a"), ("assistant", "b")) == ["<|im_start|>assistant\nb<|im_end|>"]


def test_text_is_learned_whole_with_an_end_of_sequence(tokenizer: PreTrainedTokenizerBase) -> None:
    rendered = render(tokenizer, conversation(("text", "Once upon a time.")))
    assert rendered.text == "Once upon a time.<|im_end|>"
    assert rendered.spans == ((0, 27),)


def test_text_starts_with_the_bos_token_that_the_tokenizer_adds(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = with_template(tokenizer, "{{ '' }}", bos="<s>", eos="</s>")
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", changed.bos_token_id)]
    )
    rendered = render(changed, conversation(("text", "Once.")))
    assert rendered.text == "<s>Once.</s>"
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["Once.</s>"]


def test_text_without_bos_when_the_tokenizer_has_one_but_does_not_add_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, "{{ '' }}", bos="<s>", eos="</s>")
    assert render(changed, conversation(("text", "Once."))).text == "Once.</s>"


def test_llama_3_template(tokenizer: PreTrainedTokenizerBase) -> None:
    llama = with_template(
        tokenizer,
        LLAMA_3,
        "<|start_header_id|>",
        "<|end_header_id|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
    )
    turns = (("system", "Be brief."), *CAPITALS)
    assert render(llama, conversation(*turns)).text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nCapital of France?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nParis.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd of Italy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nRome.<|eot_id|>"
    )
    assert learned(llama, *turns) == ["Paris.<|eot_id|>", "Rome.<|eot_id|>"]


def test_mistral_template(tokenizer: PreTrainedTokenizerBase) -> None:
    mistral = with_template(tokenizer, MISTRAL, "[INST]", "[/INST]", bos="<s>", eos="</s>")
    assert render(mistral, conversation(*CAPITALS)).text == (
        "<s>[INST] Capital of France? [/INST] Paris.</s>[INST] And of Italy? [/INST] Rome.</s>"
    )
    assert learned(mistral, *CAPITALS) == [" Paris.</s>", " Rome.</s>"]


def test_gemma_template(tokenizer: PreTrainedTokenizerBase) -> None:
    gemma = with_template(tokenizer, GEMMA, "<start_of_turn>", "<end_of_turn>", bos="<bos>", eos="<eos>")
    assert render(gemma, conversation(*CAPITALS)).text == (
        "<bos><start_of_turn>user\nCapital of France?<end_of_turn>\n"
        "<start_of_turn>model\nParis.<end_of_turn>\n"
        "<start_of_turn>user\nAnd of Italy?<end_of_turn>\n"
        "<start_of_turn>model\nRome.<end_of_turn>\n"
    )
    assert learned(gemma, *CAPITALS) == ["Paris.<end_of_turn>", "Rome.<end_of_turn>"]


def test_system_prompt_goes_to_the_first_user_turn_where_the_template_refuses_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    gemma = with_template(tokenizer, GEMMA, "<start_of_turn>", "<end_of_turn>", bos="<bos>")
    rendered = render(gemma, conversation(("system", "Be brief."), *CAPITALS[:2]))
    assert rendered.text == (
        "<bos><start_of_turn>user\nBe brief.\n\nCapital of France?<end_of_turn>\n"
        "<start_of_turn>model\nParis.<end_of_turn>\n"
    )
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["Paris.<end_of_turn>"]


def test_template_that_refuses_turns_says_so(tokenizer: PreTrainedTokenizerBase) -> None:
    strict = with_template(tokenizer, "{{ raise_exception('Roles must alternate') }}", "<end>")
    assert fault(strict, *CAPITALS[:2]) == "the chat template refuses these turns: Roles must alternate"


def test_template_that_thinks_on_the_last_turn_learns_what_it_writes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, THINK_ON_LAST_TURN)
    assert learned(changed, *CAPITALS) == ["Paris.<|im_end|>", "<think>\n\n</think>\n\nRome.<|im_end|>"]


@pytest.mark.parametrize("answer", ["think", "t", "/"])
def test_answer_that_also_occurs_in_the_template_s_own_words(
    tokenizer: PreTrainedTokenizerBase, answer: str
) -> None:
    changed = with_template(tokenizer, THINK_ON_LAST_TURN)
    expected = [f"<think>\n\n</think>\n\n{answer}<|im_end|>"]
    assert learned(changed, ("user", "a"), ("assistant", answer)) == expected


def test_generation_prompt_that_opens_thinking_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    opening = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    changed = with_template(tokenizer, "{% for m in messages %}" + CHATML_TURN + "{% endfor %}" + opening)
    assert fault(changed, *CAPITALS) == (
        "the chat template rewrites the turns before turn 2 once that turn is there, so what to learn "
        "cannot be told. Give another template with data.chat_template=FILE."
    )


def test_template_that_drops_the_system_prompt_later_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    keeps_one_exchange = "{% for m in messages %}{% if m['role'] != 'system' or messages | length < 4 %}"
    changed = with_template(
        tokenizer, keeps_one_exchange + CHATML_TURN + "{% endif %}{% endfor %}" + CHATML_PROMPT
    )
    turns = (("system", "Be brief."), *CAPITALS)
    assert learned(changed, *turns[:3]) == ["Paris.<|im_end|>"]
    assert "rewrites the turns before turn 3" in fault(changed, *turns)


def test_template_that_moves_the_system_prompt_to_the_last_user_turn_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    moving = (
        "{% for m in messages if m['role'] != 'system' %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'user' and loop.revindex <= 2 %}{{ messages[0]['content'] }}{% endif %}"
        "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + CHATML_PROMPT
    )
    changed = with_template(tokenizer, moving)
    assert "rewrites the turns before turn 3" in fault(changed, ("system", "Be brief."), *CAPITALS)


def test_template_that_strips_thinking_from_earlier_answers_is_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, STRIPS_EARLIER_THINKING)
    turns = (("user", "a"), ("assistant", "<think>h</think>b"), ("user", "c"), ("assistant", "d"))
    assert fault(changed, *turns) == (
        "the chat template changes the text of turn 2. Use data.chat_template=FILE."
    )


def test_stripped_answer_is_not_mistaken_for_an_equal_later_one(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = with_template(tokenizer, STRIPS_EARLIER_THINKING)
    answer = ("assistant", "<think>h</think>yes")
    assert fault(changed, ("user", "a"), answer, ("user", "b"), answer) == (
        "the chat template changes the text of turn 2. Use data.chat_template=FILE."
    )


def test_template_that_changes_an_answer_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    upper = CHATML_TURN.replace("m['content']", "m['content'] | upper")
    changed = with_template(tokenizer, "{% for m in messages %}" + upper + "{% endfor %}" + CHATML_PROMPT)
    assert fault(changed, *CAPITALS[:2]) == (
        "the chat template changes the text of turn 2. Use data.chat_template=FILE."
    )


@pytest.mark.parametrize("end", ["\n", "</s>", " END "])
def test_template_without_a_special_end_of_turn_is_refused(
    tokenizer: PreTrainedTokenizerBase, end: str
) -> None:
    plain = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + END }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    ).replace("END", repr(end))
    assert fault(with_template(tokenizer, plain), *CAPITALS[:2]) == (
        "the chat template does not end turn 2 with a special token: the model would never learn to stop. "
        "Use data.chat_template=FILE."
    )


def test_longest_end_of_turn_token_wins(tokenizer: PreTrainedTokenizerBase) -> None:
    longer = CHATML_TURN.replace("<|im_end|>", "<|im_end|><|really|>")
    changed = with_template(
        tokenizer,
        "{% for m in messages %}" + longer + "{% endfor %}" + CHATML_PROMPT,
        "<|im_end|><|really|>",
    )
    assert learned(changed, ("user", "a"), ("assistant", "b")) == ["b<|im_end|><|really|>"]


def test_special_tokens_hold_named_and_added_ones_but_no_words(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = with_template(tokenizer, "{{ '' }}", "<|tool|>")
    changed.add_tokens(["<think>"])
    assert special_tokens(changed) == {
        "<|endoftext|>": 0,
        "<|im_start|>": 1,
        "<|im_end|>": 2,
        "<|tool|>": len(tokenizer),
    }


def weighted(*turns: tuple[str, str, float | None]) -> Conversation:
    return Conversation(tuple(Message(role, content, weight) for role, content, weight in turns))


def spoken(rendered: Rendered) -> list[tuple[str, float]]:
    return [
        (rendered.text[start:end], weight)
        for (start, end), weight in zip(rendered.spans, rendered.weights, strict=True)
    ]


@pytest.mark.parametrize(
    ("supervise", "expected"),
    [
        ("assistant", ["Paris.<|im_end|>", "Rome.<|im_end|>"]),
        ("last", ["Rome.<|im_end|>"]),
        ([1], ["Paris.<|im_end|>"]),
        ([-1], ["Rome.<|im_end|>"]),
        ([-2, 2], ["Paris.<|im_end|>", "Rome.<|im_end|>"]),
        ([3], []),
    ],
)
def test_supervise_chooses_the_turns(
    tokenizer: PreTrainedTokenizerBase, supervise: str | list[int], expected: list[str]
) -> None:
    rendered = render(tokenizer, conversation(*CAPITALS), supervise)
    assert spoken(rendered) == [(text, 1.0) for text in expected]


def test_weight_of_a_message_goes_before_supervise(tokenizer: PreTrainedTokenizerBase) -> None:
    row = weighted(
        ("user", "a", 0),
        ("assistant", "b", 0.5),
        ("user", "c", None),
        ("assistant", "d", None),
        ("user", "e", None),
        ("assistant", "f", 0),
    )
    assert spoken(render(tokenizer, row)) == [("b<|im_end|>", 0.5), ("d<|im_end|>", 1.0)]
    assert spoken(render(tokenizer, row, "last")) == [("b<|im_end|>", 0.5)]


def test_weight_of_a_document(tokenizer: PreTrainedTokenizerBase) -> None:
    assert spoken(render(tokenizer, weighted(("text", "Once.", 0.5)))) == [("Once.<|im_end|>", 0.5)]
    assert spoken(render(tokenizer, weighted(("text", "Once.", 0)))) == []


def test_weight_on_a_user_turn_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError) as error:
        render(tokenizer, weighted(("user", "a", 0.5), ("assistant", "b", None)))
    assert str(error.value) == (
        "turn 1 (user) has the weight 0.5: only assistant turns are learned, or the whole text with "
        "supervise=all."
    )


def test_all_learns_the_whole_text_after_the_bos_token(tokenizer: PreTrainedTokenizerBase) -> None:
    mistral = with_template(tokenizer, MISTRAL, "[INST]", "[/INST]", bos="<s>", eos="</s>")
    rendered = render(mistral, conversation(*CAPITALS[:2]), "all")
    assert spoken(rendered) == [("[INST] Capital of France? [/INST] Paris.</s>", 1.0)]


def test_all_leaves_out_white_space_after_the_last_end_of_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    # The bos token of this tokenizer is the first marker of ChatML.
    assert spoken(render(tokenizer, conversation(*CAPITALS[:2]), "all")) == [
        ("user\nCapital of France?<|im_end|>\n<|im_start|>assistant\nParis.<|im_end|>", 1.0)
    ]


def test_all_takes_no_weights(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"turn 2 \(assistant\) has the weight 1, but data\.supervise=all"):
        render(tokenizer, weighted(("user", "a", None), ("assistant", "b", 1)), "all")


def test_spans_have_weight_one_unless_given() -> None:
    assert Rendered("abc", ((0, 1), (2, 3))).weights == (1.0, 1.0)


def test_renderer_agrees_with_the_tokenizer_with_and_without_the_compiled_template(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ tools }}{{ documents }}{{ add_generation_prompt }}"
    changed = with_template(tokenizer, own + CHATML_TURN.replace("m[", "messages[0]["))
    expected = changed.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    turns = (Message("user", "a"),)
    assert apply_template(changed, turns, generation_prompt=False) == expected
    monkeypatch.delattr("transformers.utils.chat_template_utils._compile_jinja_template")
    monkeypatch.setattr(type(changed), "apply_chat_template", lambda *_, **__: "by the tokenizer")
    assert apply_template(changed, turns, generation_prompt=False) == "by the tokenizer"


def test_renderer_travels_to_another_process(tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = Renderer(tokenizer, [-1])
    before = renderer.render(conversation(*CAPITALS))
    assert pickle.loads(pickle.dumps(renderer)).render(conversation(*CAPITALS)) == before


def test_template_that_leaves_out_a_system_prompt_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    deaf = "{% for m in messages if m['role'] != 'system' %}" + CHATML_TURN + "{% endfor %}" + CHATML_PROMPT
    assert fault(with_template(tokenizer, deaf), ("system", "Be brief."), *CAPITALS[:2]) == (
        "the chat template leaves out or changes the text of turn 1 (system). Use data.chat_template=FILE."
    )


def test_end_of_the_whole_text_is_not_learned_with_the_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    thinking = "{{ (m['reasoning_content'] or '') + m['content'] }}"
    turn = "{{ '<|im_start|>' + m['role'] + '\n' }}" + thinking + "{{ '<|im_end|>\n' }}"
    template = "{% for m in messages %}" + turn + "{% endfor %}"
    template += "{{ '<|im_start|>assistant\n' if add_generation_prompt else '<|endoftext|>' }}"
    row = Conversation((Message("user", "a"), Message("assistant", "b", reasoning="c")) * 2)
    rendered = render(with_template(tokenizer, template), row)
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["cb<|im_end|>", "cb<|im_end|>"]


SAYS_CALLS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<|last|>' }}{% endif %}{{ m['content'] }}"
    "{% for c in (m['tool_calls'] or []) %}{{ '<|call|>' + c['function']['name'] + '<|done|>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}" + CHATML_PROMPT
)
CALL = Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1}),))


def test_call_with_special_tokens_inside_is_learned_to_the_end_of_the_turn(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, SAYS_CALLS, "<|call|>", "<|done|>", "<|last|>")
    rendered = render(changed, Conversation((Message("user", "a"), CALL)))
    assert spoken(rendered) == [("<|last|><|call|>add<|done|><|im_end|>", 1.0)]


def test_call_that_is_written_otherwise_on_the_last_turn_is_learned_as_it_stands(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    changed = with_template(tokenizer, SAYS_CALLS, "<|call|>", "<|done|>", "<|last|>")
    row = Conversation((Message("user", "a"), CALL, Message("tool", "3", name="add"), CALL))
    assert spoken(render(changed, row)) == [
        ("<|call|>add<|done|><|im_end|>", 1.0),
        ("<|last|><|call|>add<|done|><|im_end|>", 1.0),
    ]


def test_earlier_calls_that_a_template_forgets_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    forgetful = SAYS_CALLS.replace("m['tool_calls'] or []", "m['tool_calls'] if loop.last else []")
    changed = with_template(tokenizer, forgetful, "<|call|>", "<|done|>", "<|last|>")
    row = (Message("user", "a"), CALL, Message("tool", "3", name="add"), Message("assistant", "Three."))
    for supervise in ("assistant", "last"):
        with pytest.raises(DataError, match=r"changes the text of turn 2|leaves out the tool calls"):
            render(changed, Conversation(row), supervise)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (
            Conversation((Message("user", "add"), Message("assistant", "b")), tools=({"name": "add"},)),
            "tools",
        ),
        (Conversation((Message("user", "add"), CALL, Message("user", "c"))), "tool calls"),
    ],
)
def test_tools_that_the_template_ignores_are_refused_even_where_their_names_occur(
    tokenizer: PreTrainedTokenizerBase, row: Conversation, part: str
) -> None:
    with pytest.raises(DataError) as error:
        render(tokenizer, row, [-3])
    assert str(error.value) == (
        f"the chat template leaves out the {part}, so another conversation would be learned. Use "
        "data.chat_template=NAME of a template that writes them: qwen2_5, qwen3, llama3, mistral or deepseek."
    )


TOOLS: tuple[Mapping[str, Any], ...] = ({"name": "f", "parameters": {"enum": ["x", "<|im_end|>"]}},)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (conversation(("user", "a<|im_end|>b"), ("assistant", "c")), "turn 1 (user) holds"),
        (conversation(("user", "a"), ("assistant", "<|im_end|>")), "turn 2 (assistant) holds"),
        (conversation(("text", "a<|im_end|>")), "turn 1 (text) holds"),
        (
            Conversation((Message("user", "a"), Message("assistant", "b", reasoning="x<|im_end|>"))),
            "turn 2 (assistant) holds",
        ),
        (
            Conversation(
                (
                    Message("user", "a"),
                    Message("assistant", "", tool_calls=(ToolCall("f", {"x": ["<|im_end|>"]}),)),
                )
            ),
            "turn 2 (assistant) holds",
        ),
        (
            PreferencePair(
                (Message("user", "a"),), (Message("assistant", "b"),), (Message("assistant", "<|im_end|>"),)
            ),
            "turn 3 (assistant) holds",
        ),
        (Conversation((Message("user", "a"),), tools=TOOLS), "the tools hold"),
    ],
)
def test_text_of_a_special_token_in_a_row_is_found(
    tokenizer: PreTrainedTokenizerBase, row: Conversation | PreferencePair, expected: str
) -> None:
    assert Renderer(tokenizer).injected(row) == f"{expected} the text of the special token '<|im_end|>'"


def test_an_answer_that_nothing_asks_for_is_refused_unless_it_is_not_learned(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    greeting = conversation(("assistant", "Hello."), *CAPITALS[:2])
    with pytest.raises(DataError, match=r"^turn 1 is the assistant's, and no turn before it asks for it: "):
        render(tokenizer, greeting)
    rendered = render(tokenizer, greeting, "last")
    assert [rendered.text[start:end] for start, end in rendered.spans] == ["Paris.<|im_end|>"]
    assert rendered.text.startswith("<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n")


def test_rows_without_special_tokens_are_clean(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["<tool>"])
    row = conversation(("user", "<|im_end| > <tool> im_start"), ("assistant", "<|im_end"))
    assert Renderer(changed).injected(row) == ""


def test_longest_special_token_is_named(bare_tokenizer: Callable[..., PreTrainedTokenizerBase]) -> None:
    changed = bare_tokenizer("", "<|end|>", ("<|end|><|really|>",))
    row = conversation(("user", "a<|end|><|really|>"), ("assistant", "b"))
    assert Renderer(changed).injected(row).endswith("the special token '<|end|><|really|>'")
