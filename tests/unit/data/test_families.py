# ruff: noqa: RUF001 - the full-width bars are DeepSeek's own.
"""Every bundled template against texts written out by hand from the published formats; «..» is learned."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from loralab.data.records import Conversation, Message, ToolCall
from loralab.data.templating import BUNDLED, Rendered, Renderer
from loralab.errors import DataError

Family = Callable[[str], PreTrainedTokenizerBase]

QWEN_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "add", "description": "Adds.", '
    '"parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}\n</tools>\n\n'
    "For each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, '
    '"arguments": <args-json-object>}\n</tool_call>'
)
LLAMA_TOOLS = """Given the following functions, please respond with a JSON for a function call with its \
proper arguments that best answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. \
Do not use variables.

{
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {
                    "type": "integer"
                }
            }
        }
    }
}

"""
CHATS = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello.<|im_end|>»\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n«So long.<|im_end|>»\n"
    ),
    "qwen2_5": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello.<|im_end|>»\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n«So long.<|im_end|>»\n"
    ),
    "qwen3": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello.<|im_end|>»\n"
        "<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n«<think>\n\n</think>\n\nSo long.<|im_end|>»\n"
    ),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]« Hello. </s>»"
        "<s>[INST] Bye [/INST]« So long. </s>»"
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello.<|eot_id|>»"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«So long.<|eot_id|>»"
    ),
    "mistral": "<s>[INST]Be brief.\n\nHi[/INST]«Hello.</s>»[INST]Bye[/INST]«So long.</s>»",
    "gemma": (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\n«Hello.<end_of_turn>»\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n«So long.<end_of_turn>»\n"
    ),
    "phi3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n«Hello.<|end|>»\n"
        "<|user|>\nBye<|end|>\n<|assistant|>\n«So long.<|end|>»\n"
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>«Hello.<|im_end|>»<|im_start|>user<|im_sep|>Bye<|im_end|>"
        "<|im_start|>assistant<|im_sep|>«So long.<|im_end|>»"
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\n«Hello.</s>»\n"
        "<|user|>\nBye</s>\n<|assistant|>\n«So long.</s>»\n"
    ),
    "vicuna": "<s>Be brief. USER: Hi ASSISTANT:« Hello.</s>»USER: Bye ASSISTANT:« So long.</s>»",
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\n«Hello.</s>»\n\n"
        "### Instruction:\nBye\n\n### Response:\n«So long.</s>»\n\n"
    ),
    "deepseek": (
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi<｜Assistant｜>«Hello.<｜end▁of▁sentence｜>»"
        "<｜User｜>Bye<｜Assistant｜>«So long.<｜end▁of▁sentence｜>»"
    ),
}
WITHOUT_SYSTEM = {
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello.<|im_end|>»\n",
    "qwen2_5": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello.<|im_end|>»\n"
    ),
    "qwen3": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«<think>\n\n</think>\n\nHello.<|im_end|>»\n"
    ),
    "llama2": "<s>[INST] Hi [/INST]« Hello. </s>»",
    "llama3": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Hello.<|eot_id|>»"
    ),
    "mistral": "<s>[INST]Hi[/INST]«Hello.</s>»",
    "gemma": "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n«Hello.<end_of_turn>»\n",
    "phi3": "<|user|>\nHi<|end|>\n<|assistant|>\n«Hello.<|end|>»\n",
    "phi4": ("<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>«Hello.<|im_end|>»"),
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\n«Hello.</s>»\n",
    "vicuna": (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. USER: Hi ASSISTANT:« Hello.</s>»"
    ),
    "alpaca": (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes "
        "the request.\n\n### Instruction:\nHi\n\n### Response:\n«Hello.</s>»\n\n"
    ),
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>«Hello.<｜end▁of▁sentence｜>»",
}
CALLS = {
    "qwen2_5": (
        "<|im_start|>system\nBe brief.\n\n" + QWEN_TOOLS + "<|im_end|>\n<|im_start|>user\n1+2?<|im_end|>\n"
        '<|im_start|>assistant\n«<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        "<|im_end|>»\n"
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n«Three.<|im_end|>»\n"
    ),
    "qwen3": (
        "<|im_start|>system\nBe brief.\n\n" + QWEN_TOOLS + "<|im_end|>\n<|im_start|>user\n1+2?<|im_end|>\n"
        '<|im_start|>assistant\n«<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        "<|im_end|>»\n"
        "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n«<think>\n\n</think>\n\nThree.<|im_end|>»\n"
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n\nBe brief."
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n" + LLAMA_TOOLS + "1+2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '«{"name": "add", "parameters": {"a": 1}}<|eot_id|>»'
        "<|start_header_id|>ipython<|end_header_id|>\n\n3<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n«Three.<|eot_id|>»"
    ),
    "mistral": (
        '<s>[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "add", "description": "Adds.", '
        '"parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}][/AVAILABLE_TOOLS]'
        "[INST]Be brief.\n\n1+2?[/INST]«[TOOL_CALLS]"
        '[{"name": "add", "arguments": {"a": 1}, "id": "call00001"}]</s>»'
        '[TOOL_RESULTS]{"content": "3", "call_id": "call00001"}[/TOOL_RESULTS]«Three.</s>»'
    ),
    "deepseek": (
        "<｜begin▁of▁sentence｜>Be brief.\n\n## Tools\nYou have access to the following tools:\n\n### add\n"
        'Description: Adds.\n\nParameters: {"type": "object", "properties": {"a": {"type": "integer"}}}\n'
        "<｜User｜>1+2?<｜Assistant｜>«<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '```json\n{"a": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>»'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>3<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
        "«Three.<｜end▁of▁sentence｜>»"
    ),
}
TWO_CALLS = {
    "qwen2_5": (
        'Adding.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "neg", "arguments": {}}\n</tool_call><|im_end|>'
    ),
    "qwen3": (
        'Adding.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "neg", "arguments": {}}\n</tool_call><|im_end|>'
    ),
    "mistral": (
        'Adding.[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "neg", "arguments": {}}]</s>'
    ),
    "deepseek": (
        "Adding.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '```json\n{"a": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>neg\n'
        "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
    ),
}
NUM_BOS = {"chatml": 0, "qwen2_5": 0, "qwen3": 0, "phi3": 0, "phi4": 0, "zephyr": 0, "llama2": 2}
"""Times that a text of two exchanges holds the bos token; once where not named."""

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
ASKED = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello."))
CHAT = Conversation((*ASKED, Message("user", "Bye"), Message("assistant", "So long.")))
SHORT = Conversation(ASKED[1:])
CALLED = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "1+2?"),
        Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1}, "call00001"),)),
        Message("tool", "3", name="add", tool_call_id="call00001"),
        Message("assistant", "Three."),
    ),
    tools=(TOOL,),
)


def marked(rendered: Rendered) -> str:
    text = rendered.text
    for start, end in reversed(rendered.spans):
        text = f"{text[:start]}«{text[start:end]}»{text[end:]}"
    return text


def as_dicts(conversation: Conversation) -> list[dict[str, Any]]:
    """The turns as a user of transformers writes them, by hand."""
    turns = []
    for message in conversation.messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
        if message.role == "tool":
            turn |= {"name": message.name, "tool_call_id": message.tool_call_id}
        turns.append(turn)
    return turns


def at_inference(
    tokenizer: PreTrainedTokenizerBase, conversation: Conversation, upto: int | None, prompt: bool
) -> str:
    return tokenizer.apply_chat_template(
        as_dicts(conversation)[:upto],
        tools=list(conversation.tools) or None,
        tokenize=False,
        add_generation_prompt=prompt,
    )


def check(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, expected: str) -> None:
    renderer = Renderer(tokenizer)
    rendered = renderer.render(conversation)
    assert marked(rendered) == expected
    assert rendered.text == at_inference(tokenizer, conversation, None, prompt=False)
    prompt = expected[: expected.rindex("«")].replace("«", "").replace("»", "")
    assert renderer.prompt(conversation.messages[:-1], conversation.tools) == prompt
    assert at_inference(tokenizer, conversation, -1, prompt=True) == prompt


def test_every_bundled_template_has_its_texts() -> None:
    assert set(CHATS) == set(WITHOUT_SYSTEM) == set(LEARNED) == set(BUNDLED)


@pytest.mark.parametrize("name", BUNDLED)
def test_two_exchanges_with_a_system_prompt(family: Family, name: str) -> None:
    check(family(name), CHAT, CHATS[name])


@pytest.mark.parametrize("name", BUNDLED)
def test_one_exchange_without_a_system_prompt(family: Family, name: str) -> None:
    check(family(name), SHORT, WITHOUT_SYSTEM[name])


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_are_learned_and_their_results_are_not(family: Family, name: str) -> None:
    check(family(name), CALLED, CALLS[name])


@pytest.mark.parametrize("name", TWO_CALLS)
def test_text_and_two_calls_in_one_turn_are_learned_together(family: Family, name: str) -> None:
    calls = (ToolCall("add", {"a": 1}), ToolCall("neg", {}))
    turns = (
        *CALLED.messages[:2],
        Message("assistant", "Adding.", tool_calls=calls),
        *(Message("tool", answer) for answer in ("3", "-3")),
        Message("assistant", "Three."),
    )
    rendered = Renderer(family(name)).render(Conversation(turns))
    assert rendered.text[slice(*rendered.spans[0])] == TWO_CALLS[name]
    assert rendered.text.count("3") == 2 + rendered.text[: rendered.spans[0][0]].count("3")


@pytest.mark.parametrize("name", CALLS)
def test_arguments_that_are_no_json_object_are_written_as_they_are(family: Family, name: str) -> None:
    called = Message("assistant", "", tool_calls=(ToolCall("add", "{broken", "call00001"),))
    rendered = Renderer(family(name)).render(Conversation((Message("user", "1+2?"), called)))
    expected = CALLS[name].split("«")[1].split("»")[0].replace('{"a": 1}', "{broken")
    assert rendered.text[slice(*rendered.spans[0])].removeprefix("<think>\n\n</think>\n\n") == expected


@pytest.mark.parametrize("name", sorted(set(BUNDLED) - set(CALLS)))
def test_family_without_tools_refuses_them(family: Family, name: str) -> None:
    with pytest.raises(DataError, match=r"leaves out the tool|has no place for a tool turn|alternate"):
        Renderer(family(name)).render(CALLED)
    with pytest.raises(DataError, match="leaves out the tools, so another conversation would be learned"):
        Renderer(family(name)).render(Conversation(CHAT.messages, tools=(TOOL,)))
    with pytest.raises(DataError, match="leaves out the tool calls"):
        Renderer(family(name)).render(Conversation(CALLED.messages[:3]))


@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma"])
def test_family_whose_turns_alternate_refuses_two_user_turns(family: Family, name: str) -> None:
    twice = Conversation((Message("user", "a"), Message("user", "b"), Message("assistant", "c")))
    with pytest.raises(DataError, match="user and assistant turns must alternate"):
        Renderer(family(name)).render(twice)


def test_llama_3_refuses_two_calls_in_one_turn(family: Family) -> None:
    called = Message("assistant", "", tool_calls=(ToolCall("add", {}), ToolCall("add", {})))
    with pytest.raises(DataError, match="one tool call in a turn"):
        Renderer(family("llama3")).render(Conversation((Message("user", "1+2?"), called)))


@pytest.mark.parametrize("name", BUNDLED)
def test_text_begins_with_at_most_one_bos_token(family: Family, name: str) -> None:
    tokenizer = family(name)
    ids = tokenizer(Renderer(tokenizer).render(CHAT).text, add_special_tokens=False).input_ids
    bos = tokenizer.bos_token_id
    assert ids.count(bos) == NUM_BOS.get(name, 1)
    assert ids[:2] != [bos, bos]


@pytest.mark.parametrize("name", ["qwen3", "deepseek"])
def test_thoughts_are_learned_with_the_last_answer(family: Family, name: str) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello.", reasoning="A greeting."))
    rendered = Renderer(family(name)).render(Conversation(turns))
    end = family(name).eos_token
    learned = [rendered.text[slice(*span)] for span in rendered.spans]
    assert learned == [f"<think>\nA greeting.\n</think>\n\nHello.{end}"]


@pytest.mark.parametrize("name", ["qwen3", "deepseek"])
def test_thoughts_inside_the_answer_are_learned_as_the_family_writes_them(family: Family, name: str) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "<think>A greeting.</think>Hello."))
    rendered = Renderer(family(name)).render(Conversation(turns))
    end = family(name).eos_token
    learned = [rendered.text[slice(*span)] for span in rendered.spans]
    assert learned == [f"<think>\nA greeting.\n</think>\n\nHello.{end}"]


@pytest.mark.parametrize("name", ["qwen3", "deepseek"])
def test_thoughts_of_an_earlier_answer_are_no_longer_read(family: Family, name: str) -> None:
    tokenizer = family(name)
    thinking = Message("assistant", "Hello.", reasoning="A greeting.")
    conversation = Conversation((Message("user", "Hi"), thinking, *CHAT.messages[3:]))
    last = Renderer(tokenizer, "last").render(conversation)
    assert marked(last) == CHATS[name].replace("<|im_start|>system\nBe brief.<|im_end|>\n", "").replace(
        "Be brief.", ""
    ).replace("«", "", 1).replace("»", "", 1)
    with pytest.raises(DataError) as error:
        Renderer(tokenizer).render(conversation)
    assert str(error.value) == (
        "the chat template leaves out the reasoning of turn 2, so the model would learn to answer without "
        "it. Learn the last turn only with data.supervise=last, or use data.chat_template=NAME of a template "
        "that writes it, such as qwen3."
    )


def test_thoughts_before_a_call_are_kept_up_to_the_answer(family: Family) -> None:
    user, called, *rest = CALLED.messages[1:]
    thinking = Message("assistant", "", tool_calls=called.tool_calls, reasoning="A sum.")
    rendered = Renderer(family("qwen3")).render(Conversation((user, thinking, *rest)))
    assert [rendered.text[slice(*span)] for span in rendered.spans] == [
        '<think>\nA sum.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
        "<|im_end|>",
        "<think>\n\n</think>\n\nThree.<|im_end|>",
    ]


def test_answer_that_holds_its_own_end_token_is_learned_to_the_real_end(family: Family) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "a<|im_end|>b"))
    rendered = Renderer(family("qwen3")).render(Conversation(turns))
    learned = [rendered.text[slice(*span)] for span in rendered.spans]
    assert learned == ["<think>\n\n</think>\n\na<|im_end|>b<|im_end|>"]


def test_thoughts_that_a_family_has_no_place_for_are_refused(family: Family) -> None:
    turns = (Message("user", "Hi"), Message("assistant", "Hello.", reasoning="A greeting."))
    with pytest.raises(DataError, match="leaves out the reasoning of turn 2"):
        Renderer(family("llama3")).render(Conversation(turns))


def ends_with(end: str) -> Callable[[str, bool], str]:
    return lambda content, last: content + end


LEARNED: dict[str, Callable[[str, bool], str]] = {
    "chatml": ends_with("<|im_end|>"),
    "qwen2_5": ends_with("<|im_end|>"),
    "qwen3": lambda content, last: (
        f"<think>\n\n</think>\n\n{content.lstrip(chr(10))}<|im_end|>" if last else f"{content}<|im_end|>"
    ),
    "llama2": lambda content, last: f" {content.strip()} </s>",
    "llama3": lambda content, last: f"{content.strip()}<|eot_id|>",
    "mistral": ends_with("</s>"),
    "gemma": lambda content, last: f"{content.strip()}<end_of_turn>",
    "phi3": ends_with("<|end|>"),
    "phi4": ends_with("<|im_end|>"),
    "zephyr": ends_with("</s>"),
    "vicuna": lambda content, last: f" {content}</s>",
    "alpaca": ends_with("</s>"),
    "deepseek": ends_with("<｜end▁of▁sentence｜>"),
}
MARKUP = re.compile(r"</?s>|<\|.*?\|>|</?think>|<(bos|eos|start_of_turn|end_of_turn)>|\[/?INST\]|<｜.*?｜>")
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(list(" \n\t<|[]>/sé字🙂")), max_size=24
).filter(lambda text: not MARKUP.search(text))
EXCHANGES = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)


@pytest.mark.parametrize("name", BUNDLED)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(system=st.none() | TEXT, exchanges=EXCHANGES)
def test_learned_ids_are_exactly_the_answers_with_their_ends(
    family: Family, name: str, system: str | None, exchanges: list[tuple[str, str]]
) -> None:
    tokenizer = family(name)
    turns = [Message("system", system)] if system is not None else []
    for asked, answered in exchanges:
        turns += [Message("user", asked), Message("assistant", answered)]
    conversation = Conversation(tuple(turns))
    rendered = Renderer(tokenizer).render(conversation)
    assert rendered.text == at_inference(tokenizer, conversation, None, prompt=False)
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    learned = [
        tokenizer.decode(
            [
                token
                for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
                if low <= start and end <= high
            ],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        for low, high in rendered.spans
    ]
    last = len(exchanges) - 1
    assert learned == [LEARNED[name](answer, turn == last) for turn, (_, answer) in enumerate(exchanges)]
    assert rendered.weights == (1.0,) * len(exchanges)


def test_tools_survive_a_round_through_json(family: Family) -> None:
    read = Conversation(CALLED.messages, tools=(json.loads(json.dumps(TOOL)),))
    assert Renderer(family("qwen2_5")).render(read) == Renderer(family("qwen2_5")).render(CALLED)
