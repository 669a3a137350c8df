"""The comparison in the terminal."""

import io
from pathlib import Path

from rich.console import Console

from loralab import metrics
from loralab.evaluation.tables import print_comparison

FIGURES = {
    metrics.BASE_TEST_PERPLEXITY: 11.0,
    metrics.TEST_PERPLEXITY: 1.5,
    metrics.BASE_TEST_EXACT_MATCH: 0.0,
    metrics.TEST_EXACT_MATCH: 0.5,
}
WHOLE = Path("outputs/train/mine/samples.jsonl")


def row(reference: str, tuned: str) -> dict[str, object]:
    return {
        "prompt": "Which [b]city[/b]?", "reference": reference, "base": "no", "tuned": tuned,
        "base_match": False, "tuned_match": tuned == reference,
    }  # fmt: skip


def printed(predictions: list[dict[str, object]], num_samples: int = 5) -> str:
    # Four columns of 16 characters, and 13 of the frame.
    console = Console(width=77, file=io.StringIO())
    print_comparison(console, FIGURES, predictions, num_samples, WHOLE)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_short_answers_stand_whole_with_their_marks() -> None:
    text = printed([row("Paris", "Paris")])
    assert "│ Which            │ Paris            │ ✗ no             │ ✓ Paris          │" in text
    assert "[b]city[/b]?" in text
    assert "whole texts" not in text


def test_a_long_answer_is_shortened_to_a_few_lines_and_the_file_of_the_whole_is_named() -> None:
    # Two words fill a line of 16.
    answer = " ".join(f"word{number:02}" for number in range(40))
    lines = printed([row(answer, "Paris")]).splitlines()
    shown = [line.split("│")[2].strip() for line in lines if "│ word" in line]
    assert shown == ["word00 word01", "word02 word03", "word04 word05", "word06 word07", "word08 word09",
                     "word10 word11 …"]  # fmt: skip
    assert lines[-1] == f"whole texts: {WHOLE}, and the report"


def test_line_breaks_and_long_words_count_as_lines() -> None:
    text = printed([row("a\n" * 30, "b" * 1000)])
    assert text.count("│ a ") == 6
    # The mark has a line of its own, as no part of the word fits beside it.
    assert text.count("b" * 14) == 5


def test_what_an_exact_match_is_is_said_of_all_references_not_of_the_shown_ones() -> None:
    assert "strict for free text" in printed([row("{}", "{}"), row("Paris", "Rome")], num_samples=1)
    assert "the same JSON value" in printed([row("{}", "{}")], num_samples=0)
    assert "exact match:" not in printed([])
