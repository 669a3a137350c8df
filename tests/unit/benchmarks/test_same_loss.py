"""The verdict on two ways to train, and what is switched between them."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import same_loss
from same_loss_report import judge, mean_and_spread, to_markdown

import loralab.config.load
from loralab.config.speed import SpeedConfig
from loralab.errors import ConfigError

PLAIN = [
    {"seed": 0, "losses": [2.0, 1.0], "val_loss": 1.0},
    {"seed": 1, "losses": [4.0, 3.0], "val_loss": 2.0},
]


def shifted(shifts: Sequence[float], val_shift: float) -> list[dict[str, Any]]:
    """The plain runs with a number added to the loss of each step."""
    return [
        {
            "seed": run["seed"],
            "losses": [loss + shift for loss, shift in zip(run["losses"], shifts, strict=True)],
            "val_loss": run["val_loss"] + val_shift,
        }
        for run in PLAIN
    ]


def held(fast: list[dict[str, Any]]) -> list[bool]:
    return [each["holds"] for each in judge(PLAIN, fast)]


def test_differences_are_held_against_the_spread_of_seeds() -> None:
    verdict = judge(PLAIN, shifted([0.1, -0.3], 0.05))

    # Means of the plain runs: 1.5 and 3.5; each step has losses 2 apart: a variance of 2.
    assert [each["difference"] for each in verdict] == pytest.approx([-0.1, 0.2, 0.05])
    assert [each["spread"] for each in verdict] == pytest.approx([math.sqrt(2), math.sqrt(2), math.sqrt(0.5)])
    assert [each["holds"] for each in verdict] == [True, True, True]


def test_a_shift_beyond_the_spread_fails_in_either_direction() -> None:
    assert held(shifted([1.5, 1.5], 0.0)) == [False, False, True]
    assert held(shifted([-1.5, -1.5], 0.0)) == [False, False, True]
    assert held(shifted([0.0, 0.0], -0.8)) == [True, True, False]


def test_differences_that_cancel_out_are_found_in_single_steps() -> None:
    assert held(shifted([2.0, -2.0], 0.0)) == [True, False, True]


def test_curves_have_a_mean_and_a_spread_for_each_step() -> None:
    means, spreads = mean_and_spread(PLAIN)

    assert means == [3.0, 2.0]
    assert spreads == pytest.approx([math.sqrt(2), math.sqrt(2)])


@pytest.mark.parametrize(("shift", "word"), [(0.1, "yes"), (3.0, "no")])
def test_the_table_tells_the_verdict(shift: float, word: str) -> None:
    fast = shifted([shift, shift], 0.0)
    report = {
        "machine": {"cpu": "A", "cores": 2, "memory_gib": 8, "versions": {}, "git": {}},
        "options": {"fused_head": ["false", "true"]},
        "rows": 4,
        "runs": {"plain": PLAIN, "fast": fast},
        "verdict": judge(PLAIN, fast),
    }

    table = to_markdown(report)

    assert f"within the noise of the seed: **{word}**" in table
    assert f"| mean of all steps | {shift:+.5f} | 1.41421 | {word} |" in table
    assert "`fused_head` (false and true)" in table


def test_every_switch_of_the_config_is_covered() -> None:
    switches = {
        field.name
        for field in dataclasses.fields(SpeedConfig)
        if isinstance(getattr(SpeedConfig(), field.name), bool | str)
    }

    assert switches == set(same_loss.find_options())
    assert same_loss.find_options()["fused_head"] == ("false", "true")
    assert same_loss.find_options()["liger"] == ("false", "auto")
    assert set(same_loss.usual_options()) == switches - {"compile"}


def test_an_option_of_other_words_is_turned_off_and_on_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_booleans(overrides: Sequence[str]) -> None:
        if overrides[0].endswith(("true", "false")):
            raise ConfigError("unknown")

    monkeypatch.setattr(loralab.config.load, "compose_train", refuse_booleans)

    assert same_loss.words_of("compile") == ("off", "on")


def test_an_option_without_known_words_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(overrides: Sequence[str]) -> None:
        raise ConfigError("unknown")

    monkeypatch.setattr(loralab.config.load, "compose_train", refuse)

    with pytest.raises(SystemExit, match=r"trainer\.speed\.level takes none"):
        same_loss.words_of("level")


def test_short_rows_are_dealt_to_the_splits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_loss, "VAL_ROWS", 2)
    rows = [{"question": f"{number} " * (300 if number == 1 else 1), "answer": "yes"} for number in range(7)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    words = same_loss.write_rows(data, tmp_path, num_train=3)

    paths = dict(word.split("=") for word in words if "path" in word)
    found = {
        key: [json.loads(line)["question"].strip() for line in Path(path).read_text().splitlines()]
        for key, path in paths.items()
    }
    assert found == {"data.path": ["0", "2", "3"], "data.val_path": ["4", "5"], "data.test_path": ["6"]}


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"question": "a", "answer": "b"}\n')

    with pytest.raises(SystemExit, match="1 rows of at most 500 characters, but 20 are needed"):
        same_loss.write_rows(data, tmp_path, num_train=3)
