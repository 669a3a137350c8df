"""The console command as a user starts it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Process = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = (sys.executable, "-m", "loralab.cli.main")


@pytest.fixture
def loralab(tmp_path: Path) -> Process:
    """Runs the command in the test's folder."""

    def run(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*COMMAND, *map(str, words)],
            cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": f"request {n}", "completion": f"é {n}"}) for n in range(3000)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_file_goes_through_every_command(loralab: Process, rows: Path, tmp_path: Path) -> None:
    for words in (
        ("convert", rows, "chat.jsonl.zst", "--to", "openai"),
        ("validate", "chat.jsonl.zst"),
        ("dedup", "chat.jsonl.zst", "unique.parquet"),
        ("split", "unique.parquet", "--out", "parts", "--kind", "jsonl"),
        ("inspect", "parts"),
    ):
        done = loralab("data", *words)
        assert (done.returncode, done.stderr) == (0, "")
    parts = [path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "parts").iterdir()]
    answers = {json.loads(line)["messages"][1]["content"] for part in parts for line in part}
    assert answers == {f"é {n}" for n in range(3000)}
    assert "rows   3,000 read = 3,000 kept + 0 left out" in done.stdout


def test_a_user_never_sees_a_traceback(loralab: Process, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(
        '{"prompt": "a", "completion": "b"}\n{"prompt": 1, "completion": "b"}\n'
    )
    done = loralab("data", "convert", "bad.jsonl", "out.jsonl", "--to", "alpaca")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: bad.jsonl line 2: the field 'prompt' holds a number; a string or a list of turns "
        "is needed (leave such rows out with on_error=skip)\n"
    )


@pytest.mark.parametrize("width", ["80", "120"])
def test_tables_keep_to_the_width(loralab: Process, rows: Path, width: str) -> None:
    done = loralab("data", "inspect", rows.name, "quality.min_chars=11", COLUMNS=width)
    tables = [line for line in done.stdout.splitlines() if line.startswith(" ") and "─" not in line]
    assert done.returncode == 0
    assert max(map(len, tables)) <= int(width)


def test_a_terminal_that_knows_ascii_alone(loralab: Process, rows: Path) -> None:
    done = loralab("data", "inspect", rows.name, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_output_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": f"x{number}", "content": "a"}]} for number in range(20_000)]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with subprocess.Popen(
        [*COMMAND, "data", "validate", "bad.jsonl", "--limit", "20000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(
            "bad.jsonl line 1: 'messages' turn 1: role='x0' is unknown"
        )
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_explained(tmp_path: Path, rows: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*COMMAND, "data", "validate", str(rows)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_an_interrupt_leaves_no_file_behind(tmp_path: Path) -> None:
    fifo = tmp_path / "rows.jsonl"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*COMMAND, "data", "convert", fifo.name, "out.jsonl", "--to", "openai"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background has its programs ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with fifo.open("w"):  # opens once the command reads
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert list(tmp_path.iterdir()) == [fifo]


def test_real_files(loralab: Process, shared_data: Path, tmp_path: Path) -> None:
    expected = {
        "alpaca_en_demo.json": (999, "alpaca"),
        "dpo_en_demo.json": (300, "sharegpt_preference"),
        "v1_sft_demo.jsonl": (500, "openai"),
        "mt_bench_questions.jsonl": (80, "prompts"),
    }
    done = loralab("data", "validate", *(shared_data / name for name in expected))
    assert done.stdout.splitlines() == [
        f"{shared_data / name}: {count:,} rows, all valid ({form})"
        for name, (count, form) in expected.items()
    ]
    for name, target in (("alpaca_en_demo.json", "openai"), ("dpo_en_demo.json", "preference")):
        assert loralab("data", "convert", shared_data / name, "there.parquet", "--to", target).returncode == 0
        back = loralab("data", "convert", "there.parquet", "back.json", "--to", expected[name][1], "--force")
        assert back.returncode == 0
        (tmp_path / "there.parquet").unlink()
