"""Whether a generated answer is right."""

import json
from collections.abc import Sequence
from typing import Any


def exact_match(answer: str, reference: str) -> bool:
    """Compares an answer with its reference.

    Where the reference is a JSON object or list, the answer must parse to an equal value: spacing and
    the order of keys do not count, everything else does. Any other text must be equal but for the
    white space around it.
    """
    expected = _parse(reference)
    if isinstance(expected, dict | list):
        return _same(_parse(answer), expected)
    return answer.strip() == reference.strip()


def explain_match(references: Sequence[str]) -> str:
    """Says what an exact match is for these references, and how strict where they are free text."""
    kinds = {isinstance(_parse(reference), dict | list) for reference in references}
    if kinds == {True}:
        return "exact match: the answer is the same JSON value as the reference"
    others = "; where that is JSON, the same value" if True in kinds else ""
    return (
        f"exact match: the whole answer is the reference, letter for letter{others}; strict for free text, "
        "where a right answer in other words counts as wrong"
    )


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _same(answer: Any, expected: Any) -> bool:
    # Python holds 1, 1.0 and True to be equal; JSON's types differ.
    if type(answer) is not type(expected):
        return False
    if isinstance(expected, dict):
        return answer.keys() == expected.keys() and all(_same(answer[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(answer) == len(expected) and all(map(_same, answer, expected))
    return bool(answer == expected)
