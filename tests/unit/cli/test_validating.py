"""`loralab data validate`."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]
PAIR = {"prompt": "a", "completion": "b"}


def test_rows_without_a_fault_are_one_line(run: Run, write_rows: Run) -> None:
    write_rows("good.jsonl", [PAIR, PAIR])
    result = run("validate", "good.jsonl")
    assert (result.exit_code, result.output) == (0, "2 rows, all valid (prompt_completion)\n")


def test_every_fault_is_listed_with_its_line(run: Run, faulty: Path) -> None:
    result = run("validate", "faulty.jsonl")
    assert result.exit_code == 2
    *faults, total = result.output.splitlines()
    assert [line.split(": ")[0] for line in faults] == [f"faulty.jsonl line {n}" for n in (2, 3, 5, 6, 7)]
    assert "the field 'prompt' holds a number; a string or a list of turns is needed" in faults[1]
    assert total == "6 rows = 1 valid + 5 with faults (prompt_completion)"


def test_the_limit_hides_faults_and_counts_them(run: Run, faulty: Path) -> None:
    lines = run("validate", "faulty.jsonl", "--limit", "2").output.splitlines()
    assert len(lines) == 4
    assert lines[2] == "6 rows = 1 valid + 5 with faults (prompt_completion)"
    assert lines[3] == "3 more different faults not shown: use --limit 5"
    lines = run("validate", "faulty.jsonl", "./faulty.jsonl", "--limit", "6").output.splitlines()
    assert [line.split(": ")[0] for line in lines[-4:]] == [
        "faulty.jsonl",
        "faulty.jsonl line 2",
        "./faulty.jsonl",
        "4 more different faults not shown",
    ]


def test_rows_with_the_same_fault_share_a_line(run: Run, write_rows: Run) -> None:
    wrong, other = {"prompt": "a", "completion": 5}, {"prompt": "a", "completion": None}
    write_rows("many.jsonl", [PAIR, wrong, other, *[wrong] * 699, other])
    first = "line 2, line 4, line 5, line 6, line 7"
    fault, needed = "the field 'completion' holds", "a string or a list of turns is needed"
    result = run("validate", "many.jsonl")
    assert result.output.splitlines() == [
        f"many.jsonl {first} and 695 more: {fault} a number; {needed} (700 rows)",
        f"many.jsonl line 3, line 703: {fault} null; {needed} (2 rows)",
        "703 rows = 1 valid + 702 with faults (prompt_completion)",
    ]


def test_files_of_different_forms_are_judged_each_by_its_own(run: Run, write_rows: Run) -> None:
    write_rows("one.jsonl", [PAIR])
    write_rows("two.jsonl", [{"instruction": "a", "output": "b"}, {"instruction": "a"}])
    result = run("validate", "one.jsonl", "two.jsonl", "format=auto")
    assert result.exit_code == 2
    assert result.output.splitlines() == [
        "one.jsonl: 1 row, all valid (prompt_completion)",
        "two.jsonl line 2: the field 'output' is missing.",
        "two.jsonl: 2 rows = 1 valid + 1 with faults (alpaca)",
    ]


def test_checks_of_quality_are_named(run: Run, write_rows: Run) -> None:
    write_rows("short.jsonl", [PAIR, {"prompt": "abc", "completion": "defg"}])
    result = run("validate", "short.jsonl", "quality.min_chars=3")
    assert result.exit_code == 2
    assert result.output.splitlines()[0] == (
        "short.jsonl line 1: min_chars: turn 1 (user) has 1 of at least 3 characters"
    )


def test_rows_of_turns_must_answer_and_prompts_need_not(run: Run, write_rows: Run) -> None:
    write_rows("turns.jsonl", [{"messages": [{"role": "user", "content": "a"}]}])
    write_rows("prompts.jsonl", [{"prompt": "a"}])
    assert "there is no assistant turn; add the answer" in run("validate", "turns.jsonl").output
    assert run("validate", "prompts.jsonl").output == "1 row, all valid (prompts)\n"


def test_a_file_that_breaks_off_counts_what_was_read(run: Run, tmp_path: Path) -> None:
    rows = "".join(f'{{"prompt": "{n * n}", "completion": "b"}}\n' for n in range(10_000))
    packed = gzip.compress(rows.encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-20])
    result = run("validate", "cut.jsonl.gz")
    assert result.exit_code == 2
    assert result.output.startswith("PATH='cut.jsonl.gz'")
    assert result.output.splitlines()[-1].endswith(
        "0 with faults (prompt_completion); the rest cannot be read"
    )


def test_a_file_of_which_no_row_can_be_read_has_no_rows_to_count(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    result = run("validate", "rows.jsonl", "columns.text=body")
    assert result.exit_code == 2
    assert result.output.splitlines()[1:] == ["no row was read"]


def test_rows_that_no_one_can_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{x\n" * 60 + '{"instruction": "a", "output": "b"}\n')
    result = run("validate", "broken.jsonl", "--limit", "1")
    assert result.output.splitlines()[1] == "61 rows = 1 valid + 60 with faults (alpaca)"
    (tmp_path / "broken.jsonl").write_text("{x\n")
    assert run("validate", "broken.jsonl").output.endswith("1 row = 0 valid + 1 with faults (openai)\n")


def test_the_rows_of_a_begun_chunk_count_where_a_file_breaks_off(run: Run, tmp_path: Path) -> None:
    rows = "".join(f'{{"prompt": "{n}", "completion": "b"}}\n' for n in range(297)).encode()
    packer = zlib.compressobj(wbits=31)
    # All 297 rows are readable; the end of the archive is missing.
    (tmp_path / "cut.jsonl.gz").write_bytes(packer.compress(rows) + packer.flush(zlib.Z_SYNC_FLUSH))
    lines = run("validate", "cut.jsonl.gz").output.splitlines()
    assert lines[-1] == "297 rows = 297 valid + 0 with faults (prompt_completion); the rest cannot be read"
