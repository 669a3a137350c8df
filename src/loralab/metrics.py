"""The name of every metric, defined once: `stage/name_unit`."""

import math
from collections.abc import Mapping
from typing import Any

TRAIN_LOSS = "train/loss"
"""Mean negative log likelihood of the supervised tokens of a step by their weights, in nats."""
TRAIN_LR = "train/lr"
"""Learning rate of a step."""
TRAIN_GRAD_NORM = "train/grad_norm"
"""Global L2 norm of the gradient before clipping; that of nothing in a step that fp16 left out."""
TRAIN_LOSS_SCALE = "train/loss_scale"
"""What fp16 multiplies the loss by before the backward pass of the next step."""
TRAIN_SKIPPED_STEPS = "train/skipped_steps"
"""Steps of the run so far that fp16 left out because their gradients overflowed."""
TRAIN_TOKENS_PER_S = "train/tokens_per_s"
"""Tokens without padding per second."""
TRAIN_TOKENS = "train/tokens"
"""Tokens of a step, without padding."""
TRAIN_SUPERVISED_TOKENS = "train/supervised_tokens"
"""Supervised tokens of a step; in the summary, of the whole run."""
VAL_LOSS = "val/loss"
"""Mean negative log likelihood of the supervised tokens of the validation split by their weights, in nats."""
VAL_PERPLEXITY = "val/perplexity"
"""exp of `val/loss`."""
VAL_PROMPT_LOSS = "val/prompt_loss"
"""Mean negative log likelihood of the tokens of the validation split that are not learned, in nats."""
VAL_PROMPT_PERPLEXITY = "val/prompt_perplexity"
"""exp of `val/prompt_loss`; `val/perplexity` is that of the response."""
INCIDENT_KIND = "incident/kind"
"""What happened to a step: skipped, rate lowered, rolled back, out of memory."""
INCIDENT_CAUSE = "incident/cause"
"""Why, in words with figures."""
INCIDENT_ROWS = "incident/rows"
"""File and place of each row of the step's batch."""
INCIDENT_COUNT = "incident/count"
"""Incidents of the run so far; of one line, what loggers that take numbers alone get."""
BASE_VAL_PERPLEXITY = "base/val_perplexity"
"""The base model's `val/perplexity`, measured before the first step."""
TEST_PERPLEXITY = "test/perplexity"
"""exp of the mean negative log likelihood of the supervised tokens of the test split, by their weights."""
BASE_TEST_PERPLEXITY = "base/test_perplexity"
"""The base model's `test/perplexity`."""
TEST_EXACT_MATCH = "test/exact_match"
"""Share of test prompts whose generated answer equals the reference, 0 to 1."""
BASE_TEST_EXACT_MATCH = "base/test_exact_match"
"""The base model's `test/exact_match`."""
MEMORY_RSS_GIB = "memory/rss_gib"
"""Resident memory of the process."""
MEMORY_PEAK_GIB = "memory/peak_gib"
"""Peak of the run so far: of allocated GPU memory on a GPU, else of resident memory of the process."""
TRAINABLE_PARAMS = "model/trainable_params"
"""Numbers that train."""
TOTAL_PARAMS = "model/total_params"
"""Numbers of the adapted model, 4-bit weights counted unpacked."""


def for_source(name: str, source: str) -> str:
    """Names a metric that counts the rows of one source alone, such as `val/loss/gsm8k`."""
    return f"{name}/{source}"


def of_stage(stage: str, figure: str) -> str:
    """Names a memory figure of one stage of a run, such as `memory/loaded_peak_gib`."""
    return f"memory/{stage}_{figure}"


def is_measured(name: str) -> bool:
    """Says whether a figure is one of time or memory, which no two runs share."""
    return name == TRAIN_TOKENS_PER_S or name.startswith("memory/")


def perplexity(nll: float) -> float:
    """Returns exp(nll), the perplexity of a mean negative log likelihood; infinity where that overflows."""
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


def loss_figures(
    loss_name: str, perplexity_name: str, loss: float, by_source: Mapping[str, float]
) -> dict[str, float]:
    """Returns a loss with its perplexity, of all rows and of each source, by the names they are logged under.

    Args:
        loss_name: What the loss is called.
        perplexity_name: What its perplexity is called.
        loss: Of all rows.
        by_source: Of each source; empty where there is one.
    """
    figures = {loss_name: loss, perplexity_name: perplexity(loss)}
    for source, each in by_source.items():
        figures[for_source(loss_name, source)] = each
        figures[for_source(perplexity_name, source)] = perplexity(each)
    return figures


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Keeps the numbers of a line of metrics, for loggers that take nothing else."""
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}
