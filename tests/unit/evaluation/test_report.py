import itertools
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from loralab.evaluation.report import compare_to_base, list_facts, state_verdict, write_report
from loralab.evaluation.run_record import RunRecord

SCRIPT = "<script>alert(1)</script>"
VOID = {"meta", "link"}
SUMMARY = {
    "run_id": "2025-03-01_quick",
    "status": "completed",
    "step": 2000,
    "train/tokens_per_s": 511.31,
    "train/supervised_tokens": 44000,
    "test/perplexity": 1.5,
    "base/test_perplexity": 6.0,
    "test/exact_match": 0.83,
    "base/test_exact_match": 0.02,
    "memory/peak_gib": 1.523,
    "model/trainable_params": 5_000_000,
    "model/total_params": 200_000_000,
    "wall_s": 3912.2,
}
MANIFEST = {
    "run_id": "2025-03-01_quick",
    "created": "2025-03-01T12:30:05+00:00",
    "command": "train",
    "seed": 42,
    "versions": {"python": "3.11.9", "torch": "2.11.0"},
    "git": {"commit": "abcdef0123456789", "dirty": True},
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gib": 15.6, "gpu": None},
    "data": [{"path": "calls.jsonl", "sha256": "ab" * 32, "rows": 1000}],
    "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}",
}
SPLIT = {"rows": 800, "kept": 798, "truncated": 7, "dropped": 2, "tokens": 65000, "supervised_tokens": 22000}
SAMPLE = {
    "prompt": f"Wake me {SCRIPT}",
    "reference": "set_alarm(7)",
    "base": "I cannot do that.",
    "tuned": "set_alarm(7)",
    "base_match": False,
    "tuned_match": True,
}


def train_line(step: int) -> dict[str, float]:
    return {
        "step": step,
        "train/loss": 0.4 + 2.0 / step,
        "train/lr": 1e-4,
        "train/grad_norm": 0.8 + 0.1 * math.sin(step),
        "train/tokens_per_s": 500.0 + 9.0 * math.cos(step),
        "memory/rss_gib": 1.4,
        "memory/peak_gib": 1.5,
    }


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    config = {"model": {"name": "tiny", "path": None}, "lora": {"r": 16}, "trainer": {"max_steps": 2000}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(["lora=r16", "data.path=my data.jsonl"]))
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "data.json").write_text(json.dumps({"splits": {"train": SPLIT, "test": SPLIT}}))
    write_lines(tmp_path / "samples.jsonl", [SAMPLE])
    validation = [{"step": 0, "val/loss": 2.1, "val/perplexity": 8.2}, {"step": 2000, "val/loss": 0.4}]
    write_lines(tmp_path / "metrics.jsonl", [*map(train_line, range(1, 2001)), *validation])
    return tmp_path


def page_of(run_dir: Path) -> str:
    return write_report(run_dir).read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects tags and checks that each is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_holds_every_section(run_dir):
    page = page_of(run_dir)
    assert "of a finished run" not in page
    for heading in (
        "The run in figures",
        "Samples before and after",
        "Data and truncation",
        "How to repeat it",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg ") == 5
    assert "&lt;|im_start|&gt;" in page
    assert "versions.torch" in page
    assert "python train.py lora=r16 &#39;data.path=my data.jsonl&#39;" in page
    assert "commit abcdef0123 with uncommitted changes" in page


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (6, f"Measured on the first 6 of {SPLIT['kept']:,} test rows (eval.max_examples)."),
        (SPLIT["kept"], f"The test split has {SPLIT['kept']:,} rows."),
    ],
)
def test_figures_say_how_many_rows_they_are_of(run_dir, most, said):
    config = {"eval": {"max_examples": most, "watch_tokens": 12}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    write_lines(run_dir / "watch.jsonl", [{"step": 0, "prompt": "p", "reference": "r", "answer": "a"}])
    assert said in page_of(run_dir)
    assert "cut after 12 tokens" in page_of(run_dir)


def test_page_is_well_formed_and_accessible(run_dir):
    outline = Outline(page_of(run_dir))
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert ("html", {"lang": "en"}) in outline.tags
    assert all(attrs.get("aria-label") for tag, attrs in outline.tags if tag == "svg")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in outline.tags if tag == "th")


def test_page_asks_nothing_of_the_network_and_runs_no_script(run_dir):
    page = page_of(run_dir)
    assert not re.search(r"https?://|<script|@import| src=|<img", page)
    assert re.findall(r'<link[^>]*href="([^"]*)"', page) == ["data:,"]
    assert "default-src 'none'" in page


def test_page_of_2000_steps_is_small(run_dir):
    page_of(run_dir)
    assert (run_dir / "report.html").stat().st_size < 600_000


def test_text_of_the_run_is_escaped(run_dir):
    (run_dir / "summary.json").write_text(json.dumps({**SUMMARY, "run_id": SCRIPT, "status": SCRIPT}))
    (run_dir / "manifest.json").write_text(json.dumps({**MANIFEST, "chat_template": SCRIPT, SCRIPT: SCRIPT}))
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"model": {"path": SCRIPT}}))
    (run_dir / "overrides.yaml").write_text(yaml.safe_dump([SCRIPT]))
    (run_dir / "data.json").write_text(json.dumps({"splits": {SCRIPT: SPLIT}}))
    page = page_of(run_dir)
    assert "<script" not in page
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Wake me &lt;script&gt;" in page
    Outline(page)


def test_matches_are_marked_with_words(run_dir):
    page = page_of(run_dir)
    assert page.count("✗ differs") == 1
    assert page.count("✓ matches") == 1
    write_lines(run_dir / "samples.jsonl", [{**SAMPLE, "base_match": None, "tuned_match": None}])
    assert not re.search("✗|✓", page_of(run_dir))


def test_the_report_says_how_strict_an_exact_match_is(run_dir):
    write_lines(run_dir / "predictions.jsonl", [{"reference": "[1]"}, {"reference": "Paris"}])
    assert "Exact match: the whole answer is the reference, letter for letter; where" in page_of(run_dir)
    (run_dir / "predictions.jsonl").unlink()
    assert "Exact match:" not in page_of(run_dir)


def test_long_samples_and_many_samples_are_cut_and_counted(run_dir):
    write_lines(run_dir / "samples.jsonl", [{**SAMPLE, "base": "z" * 8_250}] * 23)
    page = page_of(run_dir)
    assert page.count("<article") == 20
    assert "3 more in samples.jsonl" in page
    assert "250 more characters in samples.jsonl" in page
    assert "z" * 8_001 not in page


def test_empty_folder_gives_a_page_that_says_so(tmp_path):
    page = page_of(tmp_path)
    Outline(page)
    assert "No comparison with the base model was recorded" in page
    assert f"<title>{tmp_path.name}: run report</title>" in page
    for absent in ("<svg", "<article", "<table", "<details", "<th"):
        assert absent not in page


def test_run_without_training_leaves_the_curves_out(run_dir):
    (run_dir / "metrics.jsonl").unlink()
    page = page_of(run_dir)
    assert "Training curves" not in page
    assert "Samples before and after" in page


def test_nulls_nans_and_infinities_do_not_stop_the_page(run_dir):
    odd = dict.fromkeys(SUMMARY) | {"test/perplexity": math.inf, "base/test_perplexity": math.nan}
    (run_dir / "summary.json").write_text(json.dumps(odd))
    (run_dir / "manifest.json").write_text(json.dumps(dict.fromkeys(MANIFEST)))
    (run_dir / "data.json").write_text(json.dumps({"splits": {"train": None, "val": dict.fromkeys(SPLIT)}}))
    (run_dir / "config.yaml").write_text("{model: null, lora: {r: null}}")
    (run_dir / "overrides.yaml").write_text("null")
    write_lines(run_dir / "samples.jsonl", [dict.fromkeys(SAMPLE), {"prompt": "a\ud800b\u2028c", "tuned": 7}])
    write_lines(
        run_dir / "metrics.jsonl", [dict.fromkeys(train_line(1)), {"step": 1, "train/loss": math.nan}]
    )
    page = page_of(run_dir)
    Outline(page)
    assert "a?b\u2028c" in page
    assert "not comparable on test perplexity" in page


def test_diverged_steps_are_counted_under_the_plot(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2001, "train/loss": NaN}\n{"step": 2002, "train/lo')
    page = page_of(run_dir)
    assert "Left out, not finite: 1." in page
    assert "missing here: 1 (metrics.jsonl" in page


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_unfinished_run_says_so_under_the_headline(run_dir, status):
    (run_dir / "summary.json").write_text(json.dumps({**SUMMARY, "status": status}))
    assert f"Status: {status}. The figures" in page_of(run_dir)


def test_comparison_with_changes_worked_out_by_hand():
    perplexity, match = compare_to_base(SUMMARY)
    # 1.5 - 6 = -4.5, which is 75% of 6; 83% - 2% = 81 points.
    assert (perplexity.base, perplexity.tuned, perplexity.change) == (
        "6",
        "1.5",
        "\N{MINUS SIGN}4.5 (\N{MINUS SIGN}75.0%)",
    )
    assert (match.base, match.tuned, match.change) == ("2.0%", "83.0%", "+81.0 points")
    assert {perplexity.outcome, match.outcome} == {"better"}


@pytest.mark.parametrize(
    ("perplexities", "matches", "verdict"),
    [
        ((6.0, 1.5), (0.1, 0.5), "better on test perplexity and test exact match"),
        ((1.5, 6.0), (0.5, 0.1), "worse on test perplexity and test exact match"),
        ((6.0, 1.5), (0.5, 0.1), "better on test perplexity, worse on test exact match"),
        ((6.0, 1.5), (0.5, 0.5001), "better on test perplexity, unchanged on test exact match"),
        ((6.0, math.inf), (None, None), "worse on test perplexity"),
        ((6.0, math.nan), (0.1, None), "not comparable on test perplexity and test exact match"),
        ((6.0, None), (0.1, 0.5), "not comparable on test perplexity, better on test exact match"),
    ],
)
def test_verdict_is_honest(perplexities, matches, verdict):
    summary = dict(zip(("base/test_perplexity", "test/perplexity"), perplexities, strict=True))
    summary |= dict(zip(("base/test_exact_match", "test/exact_match"), matches, strict=True))
    assert state_verdict(compare_to_base(summary)) == f"The tuned model is {verdict}"


def test_validation_perplexity_stands_in_for_the_test():
    (only,) = compare_to_base({"val/perplexity": 1.5, "base/val_perplexity": 8.0})
    assert (only.label, only.outcome) == ("validation perplexity", "better")
    assert len(compare_to_base({**SUMMARY, "val/perplexity": 1.5})) == 2


def test_facts_with_units():
    config = {
        "model": {"name": "tiny", "path": "org/big"},
        "quant": {"name": "nf4"},
        "lora": {"r": 16, "alpha": 32},
    }
    facts = {
        fact.label: (fact.value, fact.note)
        for fact in list_facts(RunRecord("x", config=config, summary=SUMMARY))
    }
    assert facts == {
        "Status": ("completed", ""),
        "Model": ("org/big", "quantization nf4"),
        "LoRA rank": ("16", "alpha 32"),
        "Steps": ("2,000", ""),
        "Wall time": ("1 h 05 min", ""),
        "Throughput": ("511.3 tokens/s", "44,000 supervised tokens"),
        "Peak memory": ("1.523 GiB", ""),
        "Trainable share": ("2.5%", "5,000,000 of 200,000,000"),
    }


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (7260, "2 h 01 min")])
def test_wall_time_is_readable(seconds, shown):
    assert shown in [fact.value for fact in list_facts(RunRecord("x", summary={"wall_s": seconds}))]


def test_failed_write_keeps_the_earlier_page_and_leaves_nothing_behind(run_dir, monkeypatch):
    before = page_of(run_dir)
    names = sorted(os.listdir(run_dir))

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    (run_dir / "summary.json").unlink()
    with pytest.raises(OSError, match="disk full"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_text(encoding="utf-8") == before
    assert sorted(os.listdir(run_dir)) == sorted(set(names) - {"summary.json"})
