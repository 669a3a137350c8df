"""`loralab data inspect`."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from loralab.cli import token_report
from loralab.evaluation.data_facts import DataFacts
from loralab.model import location

Run = Callable[..., Any]
ROWS = [
    {"question": "ab", "answer": "cde", "n": 1},
    {"question": "ab", "answer": "cde", "n": "x"},
    {"question": "abcd", "answer": "write to me@example.org", "extra": None},
    {"question": "", "answer": "c"},
    {"question": 3, "answer": "c"},
]


def squeezed(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip()]


def test_everything_about_rows(run: Run, write_rows: Run) -> None:
    write_rows("rows.jsonl", ROWS)
    result = run("inspect", "rows.jsonl")
    assert result.exit_code == 0
    lines = squeezed(result.output)
    for expected in (
        "form question_answer: has 'question' and 'answer'",
        "file rows.jsonl",
        "rows 5 read = 2 kept + 3 left out",
        "question 5 (100%) a string (4), a number (1)",
        "n 2 (40%) a number (1), a string (1)",
        "extra 1 (20%) null",
        "invalid 1 rows.jsonl line 5: the field 'question' holds a number; a string is needed",
        "min_chars 1 rows.jsonl line 4: turn 1 (user) has 0 of at least 1 characters",
        "duplicate 1 rows.jsonl line 2: the same as rows.jsonl line 1",
        "exact duplicates 1",
        "near duplicates not looked for: dedup.near=prompt or conversation",
        "personal data 1 email (report)",
        "email rows.jsonl line 3: write to [EMAIL]",
        "turns 2 user, 2 assistant",
        "rows 2 of 2 turns",
        "row 5 16 26 27",
        "prompt 2 3 4 4",
        "answer 3 13 22 23",
    ):
        assert expected in lines


def test_a_file_with_faults_is_shown_as_far_as_it_goes(run: Run, tmp_path: Path) -> None:
    pair = '{"prompt": "ab", "completion": "cd"}\n'
    (tmp_path / "rows.jsonl").write_text(
        pair + '{"prompt": "a\n' + pair + '{"instruction": "a", "output": "b"}\n'
    )
    result = run("inspect", "rows.jsonl")
    assert result.exit_code == 0
    lines = squeezed(result.output)
    stops = "2 rows would stop a run; on_error=skip leaves such rows out."
    for expected in (
        "form prompt_completion: has 'prompt' and 'completion' or 'response'",
        "rows 4 read = 1 kept + 3 left out",
        "invalid 1 rows.jsonl line 4: the field 'prompt' is missing.",
        f"{stops} `loralab data validate` lists every fault of the rows.",
    ):
        assert expected in lines
    assert any(line.startswith("unreadable 1 rows.jsonl line 2: broken JSON at column 12") for line in lines)
    skipping = run("inspect", "rows.jsonl", "on_error=skip")
    assert "note:" not in skipping.output
    assert stops not in skipping.output


def test_the_form_says_where_it_comes_from(run: Run, write_rows: Run) -> None:
    write_rows("rows.jsonl", ROWS[:1])
    lines = squeezed(run("inspect", "rows.jsonl", "format=question_answer").output)
    assert "form question_answer: given with format=question_answer" in lines
    lines = squeezed(run("inspect", "rows.jsonl", "prompt_template.user='{{ question }}'").output)
    assert "form prompt_template builds the turns" in lines


def test_several_sources_add_up(run: Run, write_rows: Run) -> None:
    write_rows("a.jsonl", ROWS[:3])
    write_rows("b.jsonl", [{"text": "abc"}, {"text": " "}])
    lines = squeezed(run("inspect", "a.jsonl", "b.jsonl", "privacy.action=drop").output)
    assert "rows 3 read = 1 kept + 2 left out" in lines
    assert "rows 2 read = 1 kept + 1 left out" in lines
    assert "all rows: 5 read = 2 kept + 3 left out" in lines
    assert "turns 1 user, 1 assistant, 1 text" in lines
    assert "rows 1 of 1 turn, 1 of 2 turns" in lines


def test_data_cannot_command_the_terminal(run: Run, write_rows: Run) -> None:
    write_rows("rows.jsonl", [{"text": "\x1b[31mred", "\x1b[0m": 1}, {"text": "\x1b[31mred"}])
    output = run("inspect", "rows.jsonl").output
    assert "\x1b" not in output
    assert output.count("\\u001b") == 3


def test_markup_in_data_is_text(run: Run, write_rows: Run) -> None:
    write_rows("rows.jsonl", [{"[red]x[/blue]": "a", "text": "[/b]"}, {"text": 1, "[": ""}])
    output = run("inspect", "rows.jsonl").output
    assert "[red]x[/blue]" in output


def test_near_duplicates_and_parts_of_turns(run: Run, write_rows: Run) -> None:
    long = " ".join(f"word{n}" for n in range(60))
    call = {"function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": long},
        {"role": "assistant", "content": "a", "reasoning_content": "r", "weight": 1},
    ]
    calling = [turns[1], {"role": "assistant", "content": None, "tool_calls": [call]},
               {"role": "tool", "content": "t"}, turns[2]]  # fmt: skip
    write_rows("rows.jsonl", [
        {"messages": turns, "tools": [{"name": "f"}]},
        {"messages": [turns[0], {**turns[1], "content": f"{long}!"}, turns[2]]},
        {"messages": calling},
    ])  # fmt: skip
    lines = squeezed(run("inspect", "rows.jsonl", "dedup.near=prompt").output)
    assert "near duplicates 1 by prompt, from a similarity of 0.8" in lines
    assert "rows 1 of 2 turns, 1 of 4 turns" in lines
    assert "with 1 system prompt, 1 tools, 1 tool calls, 2 reasoning, 2 weights" in lines


@pytest.fixture(scope="module")
def tokenizer_dir(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_as_the_model_sees_them(
    run: Run, write_rows: Run, tokenizer_dir: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    write_rows("rows.jsonl", ROWS[:1])
    result = run("inspect", "rows.jsonl", "--tokenizer", tokenizer_dir)
    assert result.exit_code == 0
    start = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
    num_tokens, num_learned = (
        len(tokenizer(text, add_special_tokens=False).input_ids)
        for text in (f"{start}cde<|im_end|>\n", "cde<|im_end|>")
    )
    lines = squeezed(result.output)
    assert (
        f"learned {num_learned} of {num_tokens} tokens ({num_learned / num_tokens:.1%}), supervise=assistant"
        in lines
    )
    assert any(f"rows.jsonl line 1: {num_learned} of {num_tokens} tokens learned" in line for line in lines)
    assert f"{start}⟦cde<|im_end|>⟧" in result.output
    assert "checks every example learns, ends with its stop token and has one BOS at most" in lines


def test_what_the_length_limit_would_do(run: Run, write_rows: Run, tokenizer_dir: Path) -> None:
    write_rows("rows.jsonl", [*ROWS[:1], {"question": "x " * 40, "answer": "y"}])
    result = run("inspect", "rows.jsonl", "--tokenizer", tokenizer_dir, "--examples", "0", "max_length=40")
    lines = squeezed(result.output)
    assert any(
        "1 of 2 rows are too long (max_length=40, over_length=drop): 1 dropped, 0 cut" in x for x in lines
    )
    assert any(
        line.startswith("training would not start: 1 of 2 inspected rows are longer") for line in lines
    )
    assert "tokens learned" not in result.output


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a"}, "no assistant turns: nothing to train on"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "Learn the preferred ones with data.preference=chosen",
        ),
        ({"prompt": "a", "completion": "<|im_end|>"}, "holds the text of the special token '<|im_end|>'"),
    ],
)
def test_rows_that_training_would_refuse(
    run: Run, write_rows: Run, tokenizer_dir: Path, row: dict[str, str], says: str
) -> None:
    write_rows("rows.jsonl", [row])
    result = run("inspect", "rows.jsonl", "--tokenizer", tokenizer_dir)
    assert result.exit_code == 0
    assert says in result.output


def test_a_template_without_a_stop_token(run: Run, write_rows: Run, tokenizer_dir: Path) -> None:
    write_rows("rows.jsonl", ROWS[:1])
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    words = ("--tokenizer", str(tokenizer_dir), f"chat_template='{template}'")
    output = run("inspect", "rows.jsonl", *words).output
    assert "training would not start: rows.jsonl line 1: the chat template does not end turn 2" in output
    assert "training would not start: no row gives an example" in output
    assert "every example learns" not in output


def test_the_page_is_written(run: Run, write_rows: Run, tokenizer_dir: Path, tmp_path: Path) -> None:
    write_rows("rows.jsonl", ROWS)
    result = run("inspect", "rows.jsonl", "--tokenizer", tokenizer_dir, "--html", "page.html")
    assert result.output.endswith("page: page.html\n")
    page = (tmp_path / "page.html").read_text()
    assert "rows.jsonl" in page
    assert "min_chars" in page


def test_the_page_tells_of_personal_data_and_of_the_form(
    run: Run, write_rows: Run, tokenizer_dir: Path, tmp_path: Path
) -> None:
    answers = ["ann@example.org", "b", "bob@example.org and eve@example.org"]
    write_rows("rows.jsonl", [{"prompt": f"q{i}", "completion": text} for i, text in enumerate(answers)])
    words = ("--tokenizer", tokenizer_dir, "--html", "page.html", "--examples", "0")
    run("inspect", "rows.jsonl", "privacy.action=drop", *words)
    page = (tmp_path / "page.html").read_text()
    assert "3 values in 2 rows" in page
    assert "data.privacy.action=drop" in page
    assert "[EMAIL]" in page
    assert "@example.org" not in page
    assert "prompt_completion (has" in html.unescape(page)
    assert "Overlap of training rows with rows held out was not looked for" in page


def test_a_hub_that_does_not_answer_is_asked_once(
    run: Run, write_rows: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def no_answer(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr(location, "get_hf_file_metadata", no_answer)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *words, **named: pytest.fail("downloads"))
    write_rows("rows.jsonl", ROWS)
    result = run("inspect", "rows.jsonl", "--tokenizer", "nothing/here")
    assert result.exit_code == 2
    assert "error: --tokenizer 'nothing/here' is not on the Hugging Face Hub, is closed" in result.stderr
    assert [url.rpartition("/")[2] for url in asked] == ["config.json"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--html", "page.html"], "name what makes them with --tokenizer"),
        (["--tokenizer", "."], "holds no tokenizer that loads"),
        (["--tokenizer", "./none"], "is not a folder"),
        (["--tokenizer", ".", "--html", "no/page.html"], "the folder 'no' does not exist"),
    ],
)
def test_wrong_words_are_refused(run: Run, write_rows: Run, words: list[str], says: str) -> None:
    write_rows("rows.jsonl", ROWS)
    result = run("inspect", "rows.jsonl", *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (" ", "error: --tokenizer is empty. Allowed: a folder with tokenizer.json, a Hub name"),
        ("rows.jsonl", "error: --tokenizer 'rows.jsonl' is a file. Allowed: a folder"),
        ("./none", "error: --tokenizer './none' is not a folder. Allowed: a folder"),
        ("embeded", "error: --tokenizer 'embeded' is unknown. Did you mean 'embedded'? Allowed: a folder"),
    ],
)
def test_what_is_no_tokenizer_is_refused_with_what_is_allowed(
    run: Run, write_rows: Run, name: str, said: str
) -> None:
    write_rows("rows.jsonl", ROWS)
    result = run("inspect", "rows.jsonl", "--tokenizer", name)
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_is_left_out_is_shown_without_personal_data(
    run: Run, write_rows: Run, tokenizer_dir: Path, tmp_path: Path
) -> None:
    card, cut = "Pay with\n4111 1111 1111 1111 now", f"{'word ' * 37}john.smith@example-company.org"
    pair = {"prompt": cut, "completion": "b"}
    write_rows("rows.jsonl", [pair, pair, {"prompt": card, "completion": 7}])
    words = ("on_error=skip", "--tokenizer", tokenizer_dir, "--html", "page.html", "--examples", "0")
    output = run("inspect", "rows.jsonl", *words).output
    # The page shows the kept row as it is trained on; its lists of rows left out do not.
    page = (tmp_path / "page.html").read_text()
    assert "Pay with\\n[CARD] now" in output
    assert "4111" not in output + page
    assert "example-comp…" not in page
    assert f"{'word ' * 37}[EMAIL] / b" in page


def test_the_accounts_of_the_page_add_up(
    run: Run, write_rows: Run, tokenizer_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[DataFacts] = []
    monkeypatch.setattr(token_report, "write_data_page", lambda path, facts: written.append(facts))
    write_rows("a.jsonl", [{"prompt": f"q{n}", "completion": "yes " * (1 + 99 * (n < 2))} for n in range(6)])
    labelled = [{"prompt": f"p{n}", "completion": "b", "label": n > 0} for n in range(3)]
    write_rows("b.jsonl", [*labelled, {"prompt": "p3", "completion": 5, "label": True}])
    words = ("--tokenizer", tokenizer_dir, "--html", "page.html", "max_length=60", "on_error=skip")
    output = run("inspect", "a.jsonl", "b.jsonl", *words).output
    (facts,) = written
    for source in facts.report.sources:
        assert source.later.rows == source.tally.kept
    counts = [
        (source.tally.kept, {check: each.count for check, each in source.later.removed.items()})
        for source in facts.report.sources
    ]
    assert counts == [(6, {"over_length": 2}), (3, {"without_answer": 1})]
    assert facts.report.splits["train"].kept == 6
    assert facts.report.ledgers["train"].kept == 6
    expected = "without_answer 1 b.jsonl line 1: the answer is labelled as a bad one"
    assert expected in squeezed(output)


def test_a_last_source_of_which_nothing_stays_is_accounted_for(
    run: Run, write_rows: Run, tokenizer_dir: Path, tmp_path: Path
) -> None:
    write_rows("a.jsonl", ROWS[:1])
    write_rows("b.jsonl", ROWS[:1])
    words = ("--tokenizer", tokenizer_dir, "--html", "page.html", "--examples", "0")
    assert run("inspect", "a.jsonl", "b.jsonl", *words).exit_code == 0
    assert "1 duplicate" in (tmp_path / "page.html").read_text()
