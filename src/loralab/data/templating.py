"""From a conversation to text, with the character spans that are to be learned."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from loralab.data.records import Conversation, Message
from loralab.errors import DataError, ModelError

BUNDLED = ("chatml",)
"""Templates that come with the package, by the name to give in `data.chat_template`."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it."""

    text: str
    """The whole text, special tokens included."""
    spans: tuple[tuple[int, int], ...]
    """Character ranges [start, end) to learn: each assistant turn with its end-of-turn token."""


def set_chat_template(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    """Gives the tokenizer a bundled template or the user's own; None keeps what the tokenizer has.

    Raises:
        ModelError: The tokenizer has none and none was given, or the file does not exist.
    """
    if template in BUNDLED:
        tokenizer.chat_template = (files("loralab.data") / "templates" / f"{template}.jinja").read_text()
    elif template is not None:
        path = Path(template)
        if not path.is_file():
            known = ", ".join(BUNDLED)
            raise ModelError(f"data.chat_template={template!r} is neither a file nor one of: {known}.")
        try:
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"data.chat_template={template!r} cannot be read: {error}") from error
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template. Use an instruct model, or data.chat_template=chatml, "
            "or data.chat_template=FILE with a Jinja template."
        )


def apply_template(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generation_prompt: bool
) -> str:
    """Renders turns with the tokenizer's chat template, exactly as at inference.

    A template without a place for a system prompt (Gemma 2) gets it at the head of the first user turn.

    Raises:
        DataError: The template refuses the turns.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]

    def apply(chat: list[dict[str, str]]) -> str:
        return str(
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation_prompt)
        )

    try:
        try:
            return apply(turns)
        except TemplateError:
            if [turn["role"] for turn in turns[:2]] != ["system", "user"]:
                raise
            first = {"role": "user", "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}
            return apply([first, *turns[2:]])
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise DataError(f"the chat template refuses these turns: {error}") from error


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation) -> Rendered:
    """Renders a conversation once and finds what to learn in it.

    A supervised span starts where the model would start to write at inference (after the generation
    prompt) and ends with the end-of-turn token. A plain document is learned whole, with an
    end-of-sequence token.

    Raises:
        DataError: The template rewrites earlier turns, changes a turn's text or does not end a turn
            with a special token, so that spans cannot be known.
    """
    if conversation.is_text:
        text = (tokenizer.bos_token if _adds_bos(tokenizer) else "") + conversation.response
        end = text + str(tokenizer.eos_token or "")
        return Rendered(end, ((len(text) - len(conversation.response), len(end)),))
    text = apply_template(tokenizer, conversation.messages, generation_prompt=False)
    spans = [
        _turn_span(tokenizer, conversation.messages, turn, text)
        for turn, message in enumerate(conversation.messages)
        if message.role == "assistant"
    ]
    return Rendered(text, tuple(spans))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Every special token of the tokenizer, with its id."""
    added = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    return {**added, **named}


def _adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("").input_ids[:1] == [bos]


def _turn_span(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], turn: int, text: str
) -> tuple[int, int]:
    before = apply_template(tokenizer, messages[:turn], generation_prompt=True)
    if not text.startswith(before):
        raise DataError(
            f"the chat template rewrites the turns before turn {turn + 1} once that turn is there, so what "
            "to learn cannot be told. Give another template with data.chat_template=FILE."
        )
    content = messages[turn].content.strip()
    end_of_turn = _end_of_turn(tokenizer)
    ending = None
    found = text.find(content, len(before))
    while found >= 0 and not (ending := end_of_turn.match(text, found + len(content))):
        found = text.find(content, found + 1)
    # An end before the text that was found: it belongs to a later turn that says the same.
    if content not in text[len(before) :] or (ending and ending[1] in text[len(before) : found]):
        raise DataError(
            f"the chat template changes the text of turn {turn + 1}. Use data.chat_template=FILE."
        )
    if not ending:
        raise DataError(
            f"the chat template does not end turn {turn + 1} with a special token: the model would never "
            "learn to stop. Use data.chat_template=FILE."
        )
    return len(before), ending.end()


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    # Longest first: where one special token begins with another, the whole one ends the turn.
    tokens = sorted(special_tokens(tokenizer), key=len, reverse=True)
    any_token = "|".join(map(re.escape, tokens)) or "(?!)"
    return re.compile(rf"\s*({any_token})")
