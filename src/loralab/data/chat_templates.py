"""Chat templates: the bundled ones, how a tokenizer gets one, and turns rendered with it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from loralab.data.records import Message, ToolCall
from loralab.errors import DataError, ModelError, did_you_mean

BUNDLED: dict[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "qwen2_5": ("<|im_start|>", "<|im_end|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>"),
    "llama2": ("eos_token",),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("[INST]", "[/INST]", "eos_token"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "phi4": ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    "zephyr": ("eos_token",),
    "vicuna": ("eos_token",),
    "alpaca": ("eos_token",),
    "deepseek": ("<｜User｜>", "<｜Assistant｜>", "eos_token"),  # noqa: RUF001
}
"""Templates that come with the package, by the name to give in `data.chat_template`, and the tokens that a
tokenizer must know for each; `eos_token` is whichever it ends sequences with."""

_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a template raises on turns that it has no place for."""

_PROBE_TOOL = {"type": "function", "function": {"name": "loralab_tool", "description": "", "parameters": {}}}
_PROBE_TURNS = (
    Message("user", "Begin."),
    Message("assistant", "", tool_calls=(ToolCall("loralab_call", {}, "loralab00"),)),
    Message("tool", "loralab_result", name="loralab_call", tool_call_id="loralab00"),
)


def set_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """Gives the tokenizer a bundled template, a file or Jinja text; None keeps what the tokenizer has.

    Raises:
        ModelError: The tokenizer has none and none was given, the tokenizer lacks a bundled template's
            tokens, or the file cannot be read or is no Jinja template.
    """
    if template is not None:
        text = _template_text(tokenizer, template)
        try:
            _compile(text)
        except TemplateError as error:
            shown = "" if _is_jinja(template) else f"={template!r}"
            raise ModelError(f"data.chat_template{shown} is not a valid Jinja template: {error}") from error
        tokenizer.chat_template = text
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template. Use an instruct model, or data.chat_template=chatml, "
            "or data.chat_template=FILE with a Jinja template."
        )


class ChatTemplate:
    """The chat template that a tokenizer has when this is built, ready to render many conversations."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def apply(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], generation_prompt: bool
    ) -> str:
        """Renders turns character for character as the tokenizer's `apply_chat_template` does.

        A template without a place for a system prompt (Gemma 2) gets it at the head of the first user turn.

        Raises:
            DataError: The template refuses the turns.
        """
        turns = [_as_turn(message) for message in messages]
        try:
            try:
                return self._render(turns, tools, generation_prompt)
            except TemplateError:
                if [turn["role"] for turn in turns[:2]] != ["system", "user"]:
                    raise
                first = {**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
                return self._render([first, *turns[2:]], tools, generation_prompt)
        except _REFUSALS as error:
            raise DataError(f"the chat template refuses these turns: {error}") from error

    @cached_property
    def ignored(self) -> tuple[str, ...]:
        """Which of tools, tool calls and tool turns the template leaves out without a word."""
        probes = {
            "tools": (_PROBE_TURNS[:1], (_PROBE_TOOL,), "loralab_tool"),
            "tool calls": (_PROBE_TURNS[:2], (), "loralab_call"),
            "tool turns": (_PROBE_TURNS, (), "loralab_result"),
        }
        return tuple(part for part, probe in probes.items() if self._leaves_out(*probe))

    def _leaves_out(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], word: str) -> bool:
        try:
            return word not in self.apply(messages, tools, generation_prompt=False)
        except DataError:
            # Refused rather than left out: a row that holds the like is refused as well.
            return False

    @cached_property
    def _compiled(self) -> Template | None:
        return _compile(self._tokenizer.get_chat_template())

    @cached_property
    def _named_tokens(self) -> dict[str, str]:
        return dict(self._tokenizer.special_tokens_map)

    def _render(
        self, turns: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], generation_prompt: bool
    ) -> str:
        plain = turns and not tools and all(turn.keys() == {"role", "content"} for turn in turns)
        if plain and self._compiled is not None:
            return self._compiled.render(
                messages=turns,
                tools=None,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self._named_tokens,
            )
        schemas: list[Any] = [dict(tool) for tool in tools]
        return str(
            self._tokenizer.apply_chat_template(
                turns, tools=schemas or None, tokenize=False, add_generation_prompt=generation_prompt
            )
        )


def _as_turn(message: Message) -> dict[str, Any]:
    """A message in the form that chat templates read; what is empty is left out."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    optional = {
        "reasoning_content": message.reasoning,
        "name": message.name,
        "tool_call_id": message.tool_call_id,
        "tool_calls": [_as_call(call) for call in message.tool_calls],
    }
    turn.update((key, value) for key, value in optional.items() if value)
    return turn


def _as_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else dict(call.arguments)
    function = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {**function, "id": call.id} if call.id else function


def _compile(template: str) -> Template | None:
    # Not part of the documented interface; without it every turn goes through the tokenizer, twice as slow.
    compiler = getattr(chat_template_utils, "_compile_jinja_template", None)
    return compiler(template) if compiler else None


def _is_jinja(template: str) -> bool:
    return "{%" in template or "{{" in template


def _template_text(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    if _is_jinja(template):
        return template
    if template in BUNDLED:
        if missing := _missing(tokenizer, template):
            fitting = ", ".join(name for name in BUNDLED if not _missing(tokenizer, name))
            raise ModelError(
                f"data.chat_template={template!r} needs {', '.join(missing)}, which the tokenizer does not "
                "have: cut into pieces, the model would not learn where a turn ends. Templates that fit "
                f"the tokenizer: {fitting or 'none'}."
            )
        return (files("loralab.data") / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
    path = Path(template)
    if not path.is_file():
        known = ", ".join(BUNDLED)
        raise ModelError(
            f"data.chat_template={template!r} is neither a file nor one of: {known}."
            f"{did_you_mean(template, BUNDLED)}"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"data.chat_template={template!r} cannot be read: {error}") from error


def _missing(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    known = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    if tokenizer.eos_token:
        known.add("eos_token")
    return [token for token in BUNDLED[name] if token not in known]
