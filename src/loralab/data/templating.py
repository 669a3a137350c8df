"""From a conversation to text, with the character spans that are to be learned."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from loralab.data.chat_templates import BUNDLED, ChatTemplate, set_chat_template
from loralab.data.records import Conversation, Message, Record, all_messages
from loralab.data.spans import check_supervise, turn_in_place, turn_weights
from loralab.errors import DataError

__all__ = [
    "BUNDLED",
    "Rendered",
    "Renderer",
    "apply_template",
    "render",
    "set_chat_template",
    "special_tokens",
]


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it."""

    text: str
    """The whole text, special tokens included."""
    spans: tuple[tuple[int, int], ...]
    """Character ranges [start, end) to learn: each chosen assistant turn with its end-of-turn token."""
    weights: tuple[float, ...] = ()
    """Weight of each span in the loss, above 0; all 1 unless given."""

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.spans))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Every special token of the tokenizer, with its id."""
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {**added, **named}


def apply_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Renders turns with the tokenizer's chat template, exactly as at inference.

    A template without a place for a system prompt (Gemma 2) gets it at the head of the first user turn.

    Raises:
        DataError: The template refuses the turns.
    """
    return ChatTemplate(tokenizer).apply(messages, tools, generation_prompt)


def render(
    tokenizer: PreTrainedTokenizerBase,
    conversation: Conversation,
    supervise: str | Sequence[int] = "assistant",
) -> Rendered:
    """Renders one conversation as `Renderer.render` does; for many, build a `Renderer` once."""
    return Renderer(tokenizer, supervise).render(conversation)


class Renderer:
    """Renders conversations with one tokenizer and the chat template that it has by then.

    Args:
        tokenizer: A tokenizer with a chat template.
        supervise: What is learned: assistant (all its turns), last (its last turn), all (every token after
            the beginning-of-sequence token), or assistant turns counted from 1, from the end where negative.

    Raises:
        ConfigError: `supervise` is none of these.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, supervise: str | Sequence[int] = "assistant"
    ) -> None:
        self.tokenizer = tokenizer
        self.supervise = check_supervise(supervise)
        self._template = ChatTemplate(tokenizer)

    def __reduce__(self) -> tuple[type["Renderer"], tuple[Any, ...]]:
        # A compiled template cannot be pickled; another process compiles its own.
        return Renderer, (self.tokenizer, self.supervise)

    def render(self, conversation: Conversation) -> Rendered:
        """Renders a conversation once and finds what to learn in it.

        A span starts where the model would start to write at inference (after the generation prompt) and
        ends with the end-of-turn token. A message's own weight goes before `supervise`; weight 0 gives no
        span. A plain document is learned whole, with an end-of-sequence token.

        Raises:
            DataError: The template refuses the turns, leaves a part of them out, or does not let the spans
                be known; or a weight stands where it cannot.
        """
        if conversation.is_text:
            return self._document(conversation.messages[0])
        weights = turn_weights(conversation.messages, self.supervise)
        text = self._template.apply(conversation.messages, conversation.tools, generation_prompt=False)
        spans = tuple(self._turn_span(conversation, turn, text) for turn in weights)
        self._check_tools(conversation, text)
        self._check_texts(conversation, text)
        if self.supervise == "all":
            return Rendered(text, (self._whole_span(text),))
        return Rendered(text, spans, tuple(weights.values()))

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Renders the turns before an answer, up to where the model starts to write.

        Raises:
            DataError: The template refuses the turns.
        """
        return self._template.apply(messages, tools, generation_prompt=True)

    def injected(self, record: Record) -> str:
        """Names the first text of a row that holds a special token's own text; empty where none does.

        A tokenizer reads such text as markup: a user turn that holds an end-of-turn token ends there.
        """
        for number, message in enumerate(all_messages(record), start=1):
            calls = [(call.name, call.arguments) for call in message.tool_calls]
            for text in (message.content, message.reasoning, message.name, *_strings(calls)):
                if found := self._special.search(text):
                    return f"turn {number} ({message.role}) holds the text of the special token {found[0]!r}"
        for text in _strings(record.tools):
            if found := self._special.search(text):
                return f"the tools hold the text of the special token {found[0]!r}"
        return ""

    @cached_property
    def _special(self) -> re.Pattern[str]:
        # Longest first: where one special token begins with another, the whole one counts.
        tokens = sorted(filter(str.strip, special_tokens(self.tokenizer)), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or "(?!)")

    @cached_property
    def _special_next(self) -> re.Pattern[str]:
        return re.compile(rf"\s*({self._special.pattern})")

    @cached_property
    def _special_last(self) -> re.Pattern[str]:
        return re.compile(rf"({self._special.pattern})\s*\Z")

    @cached_property
    def _end_of_turn(self) -> str:
        """The token that ends a plain answer; empty where the template writes none."""
        asked, answered = Message("user", "loralab asks"), Message("assistant", "loralab answers")
        try:
            text = self._template.apply((asked, answered), (), generation_prompt=False)
        except DataError:
            return ""
        found = self._special_next.match(text, text.rfind(answered.content) + len(answered.content))
        return found[1] if found else ""

    @cached_property
    def _bos(self) -> str:
        return str(self.tokenizer.bos_token or "")

    @cached_property
    def _adds_bos(self) -> bool:
        return bool(self._bos) and self.tokenizer("").input_ids[:1] == [self.tokenizer.bos_token_id]

    def _document(self, message: Message) -> Rendered:
        start = len(self._bos) if self._adds_bos else 0
        text = self._bos[:start] + message.content + str(self.tokenizer.eos_token or "")
        weight = 1.0 if message.weight is None else message.weight
        return Rendered(text, ((start, len(text)),), (weight,)) if weight > 0 else Rendered(text, ())

    def _whole_span(self, text: str) -> tuple[int, int]:
        start = len(self._bos) if text.startswith(self._bos) else 0
        # White space after the last end-of-turn token is never generated.
        ending = self._special_last.search(text)
        return start, ending.end(1) if ending else len(text)

    def _turn_span(self, conversation: Conversation, turn: int, text: str) -> tuple[int, int]:
        messages, tools = conversation.messages, conversation.tools
        if turn == 0:
            raise DataError(
                "turn 1 is the assistant's, and no turn before it asks for it: take it out, put a user turn "
                "before it, or learn the last answer only with data.supervise=last"
            )
        message, before = messages[turn], self.prompt(messages[:turn], tools)
        start = len(before)
        if not text.startswith(before):
            raise _rewritten(turn)
        if not (message.tool_calls or message.reasoning):
            # The common case: the content and then the end-of-turn token, nothing else.
            content = message.content.strip()
            found = text.find(content, start)
            ending = self._special_next.match(text, found + len(content))
            if ending and found >= 0 and not text[start:found].strip():
                return start, ending.end()
        alone = (
            text if turn == len(messages) - 1 else self._template.apply(messages[: turn + 1], tools, False)
        )
        if not alone.startswith(before):
            raise _rewritten(turn)
        said = turn_in_place(message, turn, alone[start:], self._find_end(alone[start:]), text[start:])
        return start, start + len(said)

    def _find_end(self, turn_text: str) -> tuple[int, int] | None:
        at = turn_text.rfind(self._end_of_turn) if self._end_of_turn else -1
        if at >= 0:
            return at, at + len(self._end_of_turn)
        ending = self._special_last.search(turn_text)
        return ending.span(1) if ending else None

    def _check_tools(self, conversation: Conversation, text: str) -> None:
        turns = conversation.messages
        names = {
            "tools": [_tool_name(tool) for tool in conversation.tools],
            "tool calls": [call.name for turn in turns for call in turn.tool_calls],
            "tool turns": ["" for turn in turns if turn.role == "tool"],
        }
        for part, wanted in names.items():
            if wanted and (part in self._template.ignored or any(name not in text for name in wanted)):
                raise DataError(
                    f"the chat template leaves out the {part}, so another conversation would be learned. "
                    "Use data.chat_template=NAME of a template that writes them: qwen2_5, qwen3, llama3, "
                    "mistral or deepseek."
                )

    def _check_texts(self, conversation: Conversation, text: str) -> None:
        for number, message in enumerate(conversation.messages, start=1):
            wanted = [message.content] if message.role in ("system", "user") else []
            if message.role == "assistant" and self.supervise == "all":
                wanted = [message.content, message.reasoning]
            if any(part.strip() not in text for part in wanted):
                raise DataError(
                    f"the chat template leaves out or changes the text of turn {number} ({message.role}). "
                    "Use data.chat_template=FILE."
                )


def _rewritten(turn: int) -> DataError:
    return DataError(
        f"the chat template rewrites the turns before turn {turn + 1} once that turn is there, so what "
        "to learn cannot be told. Give another template with data.chat_template=FILE."
    )


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name", ""))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)
