"""The base model against the tuned one, on the same held-out examples."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from rich.console import Console
from rich.progress import Progress
from transformers import PreTrainedTokenizerBase

from loralab import metrics
from loralab.config.schema import EvalConfig
from loralab.data.cutting import MicroBatchSize
from loralab.data.datamodule import eval_batches
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.prepare import PreparedData
from loralab.data.templating import apply_template, special_tokens
from loralab.evaluation.generation import GenerationSettings, generate_responses
from loralab.evaluation.matching import exact_match
from loralab.evaluation.perplexity import mean_nll

GENERATION_CAP = 256


@dataclass(frozen=True)
class Comparison:
    """What was measured."""

    figures: dict[str, float | None]
    """Perplexity and exact match of both models, by metric name; None where it does not apply."""
    predictions: list[dict[str, Any]]
    """For each example: prompt, reference, both answers and whether they match."""


def compare(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    data: PreparedData,
    config: EvalConfig,
    console: Console,
) -> Comparison:
    """Measures perplexity on response tokens and exact match of greedy answers, without and with the adapter.

    Args:
        model: The adapted model, in evaluation mode.
        tokenizer: Its tokenizer.
        data: Holds the test split.
        config: How many examples and how long the answers.
        console: Shows the progress.
    """
    chosen, names = data.test.examples[: config.max_examples], data.source_names
    batches = eval_batches(chosen, MicroBatchSize(rows=config.batch_size), tokenizer.pad_token_id)
    tuned = mean_nll(model, batches, names)
    with model.disable_adapter():
        base = mean_nll(model, batches, names)
    chats = [example for example in chosen if not example.conversation.is_text]
    predictions = _answers(model, tokenizer, chats, config, console) if chats else []
    figures: dict[str, float | None] = {
        metrics.TEST_PERPLEXITY: metrics.perplexity(tuned.mean),
        metrics.BASE_TEST_PERPLEXITY: metrics.perplexity(base.mean),
        metrics.TEST_EXACT_MATCH: _share(predictions, "tuned_match"),
        metrics.BASE_TEST_EXACT_MATCH: _share(predictions, "base_match"),
    }
    for name in tuned.by_source:
        of_source = [row for row, chat in zip(predictions, chats, strict=True) if names[chat.source] == name]
        figures |= {
            metrics.for_source(metrics.TEST_PERPLEXITY, name): metrics.perplexity(tuned.by_source[name]),
            metrics.for_source(metrics.BASE_TEST_PERPLEXITY, name): metrics.perplexity(base.by_source[name]),
            metrics.for_source(metrics.TEST_EXACT_MATCH, name): _share(of_source, "tuned_match"),
            metrics.for_source(metrics.BASE_TEST_EXACT_MATCH, name): _share(of_source, "base_match"),
        }
    return Comparison(figures, predictions)


def generation_settings(
    examples: Sequence[Example], config: EvalConfig, special_ids: Collection[int]
) -> GenerationSettings:
    """Derives stop tokens and the longest answer from what the examples teach.

    The stop tokens are the last supervised token of each example: what ends a turn in this template. An
    answer that was cut ends in an ordinary token, which stops nothing.

    Args:
        examples: What is answered.
        config: Limits that the user set.
        special_ids: Every special token.
    """
    learned = [[label for label in example.labels if label != IGNORE_INDEX] for example in examples]
    longest = min(GENERATION_CAP, math.ceil(1.25 * max(map(len, learned))))
    return GenerationSettings(
        max_new_tokens=config.max_new_tokens or longest,
        stop_ids=tuple(sorted({labels[-1] for labels in learned}.intersection(special_ids))),
        batch_size=config.batch_size,
    )


def watched_answers(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    max_new_tokens: int,
) -> list[dict[str, str]]:
    """Answers prompts with the model as it is.

    Args:
        model: The adapted model, in evaluation mode.
        tokenizer: Its tokenizer.
        examples: Chats; the answer to the last turn of each is asked for.
        max_new_tokens: Longest answer.

    Returns:
        For each: `prompt`, `reference` and `answer`.
    """
    limits = EvalConfig(max_new_tokens=max_new_tokens)
    settings = generation_settings(examples, limits, special_tokens(tokenizer).values())
    answers = _generate(model, tokenizer, examples, settings)
    return [{**_shown(example), "answer": answer} for example, answer in zip(examples, answers, strict=True)]


def _answers(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    config: EvalConfig,
    console: Console,
) -> list[dict[str, Any]]:
    settings = generation_settings(examples, config, special_tokens(tokenizer).values())
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("answering the test prompts", total=2 * len(examples))

        def advance(num_done: int) -> None:
            progress.advance(task, num_done)

        tuned = _generate(model, tokenizer, examples, settings, advance)
        with model.disable_adapter():
            base = _generate(model, tokenizer, examples, settings, advance)
    return [
        {
            **_shown(example),
            "base": base_answer,
            "tuned": tuned_answer,
            "base_match": exact_match(base_answer, example.conversation.response),
            "tuned_match": exact_match(tuned_answer, example.conversation.response),
        }
        for example, base_answer, tuned_answer in zip(examples, base, tuned, strict=True)
    ]


def _generate(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    settings: GenerationSettings,
    advance: Callable[[int], None] = lambda num_done: None,
) -> list[str]:
    """Answers the last turn of each example, without what the template puts before an answer."""
    prompts = [
        apply_template(
            tokenizer, each.conversation.prompt, generation_prompt=True, tools=each.conversation.tools
        )
        for each in examples
    ]
    answers = generate_responses(model, tokenizer, prompts, settings, advance)
    prefixes = [_template_prefix(tokenizer, example) for example in examples]
    return [answer.removeprefix(prefix) for answer, prefix in zip(answers, prefixes, strict=True)]


def _shown(example: Example) -> dict[str, str]:
    item = example.conversation
    return {"prompt": _shown_prompt(item.prompt[-1:] or item.messages), "reference": item.response}


def _template_prefix(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    """What the template puts between the generation prompt and the answer, such as an empty thought."""
    start = len(example.labels)
    while start > 0 and example.labels[start - 1] == IGNORE_INDEX:
        start -= 1
    while start > 0 and example.labels[start - 1] != IGNORE_INDEX:
        start -= 1
    learned = str(tokenizer.decode(example.input_ids[start:], skip_special_tokens=True))
    return learned[: max(0, learned.find(example.conversation.response.strip()))]


def _shown_prompt(messages: Sequence[Any]) -> str:
    return "\n".join(message.content for message in messages)


def _share(predictions: Sequence[dict[str, Any]], key: str) -> float | None:
    return sum(row[key] for row in predictions) / len(predictions) if predictions else None
