"""What a user types wrong ends with exit code 2 and a short message that names it and the fix."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}
OUTPUTS_KEY = {"train.py": "run.outputs_dir", "evaluate.py": "outputs_dir"}
MOST_LINES = 6

FILES = {
    "empty.jsonl": "",
    "broken.jsonl": '{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", "completion": "b"\n',
    "strange.jsonl": '{"question": "a", "solution": "b"}\n',
    "unanswered.jsonl": '{"messages": [{"role": "user", "content": "hi"}]}\n',
    "rows.txt": "plain text\n",
}


@dataclass(frozen=True)
class Case:
    """One wrong command; `{tmp}`, `{model}` and `{rows}` stand for the test's folder, model and rows."""

    name: str
    overrides: Sequence[str]
    says: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


GOOD = ("model.path={model}", "data=file", "data.path={rows}", "data.max_length=256", "trainer=cpu")


def on_files(name: str, overrides: Sequence[str], says: Sequence[str]) -> Case:
    """A case whose only fault is what `overrides` change in a command that would run."""
    return Case(name, (*GOOD, *overrides), says)


COMPOSITION = [
    Case("a misspelt key", ["lora.rank=3"], ["lora.rank is unknown.", "Did you mean 'lora.r'?"]),
    Case("a misspelt choice", ["lora=r65"], ["lora=r65 is unknown.", "Did you mean 'r64'?", "r8"]),
    Case("a misspelt group", ["modle=llama3_8b"], ["modle is unknown.", "Did you mean 'model'?"]),
    Case("a misspelt preset", ["experiment=quik"], ["experiment=quik", "Did you mean 'quick'?"]),
    Case("a word for a number", ["lora.r=abc"], ["lora.r='abc' is not a whole number."]),
    Case("a key that no schema has", ["+foo=1"], ["foo is unknown."]),
    Case("an unknown model", ["model=unknown"], ["model=unknown is unknown.", "llama3_8b", "smollm2_135m"]),
    Case("a number for a group", ["lora=8"], ["lora=8", "such as lora=r8"]),
    Case("null for a group", ["model=llama3_8b", "lora=null"], ["error: lora=null: a group takes the name"]),
    Case("no key", ["=3"], ["=3"]),
    Case("no value", ["lora.r"], ["'lora.r'"]),
    Case(
        "a sign that needs quotes",
        ["data.path=~/rows.jsonl"],
        ["cannot read 'data.path=~/rows.jsonl'. Put quotes around", "\"data.path='~/rows.jsonl'\"."],
    ),
    Case("a sweep without -m", ["lora=r8,r16"], ["lora=r8,r16", "Add -m"]),
    Case("a misspelt choice in a sweep", ["-m", "lora=r8,r65"], ["lora=r65", "Did you mean 'r64'?"]),
    Case(
        "two faults at once",
        ["optim.lr=3", "lora.r=0"],
        [
            "2 faults",
            "optim.lr=3.0 is out of range. Allowed: above 0, at most 1.",
            "lora.r=0 is out of range. Allowed: 1 to 1024.",
        ],
    ),
    on_files(
        "missing files among other faults, before the model is looked at",
        ["model.path={tmp}/no", "lora.r=0", "data.val_path={tmp}/val.jsonl", "data.test_path={tmp}/emty.*"],
        [
            "3 faults",
            "lora.r=0 is out of range.",
            "/val.jsonl' does not exist.",
            "/emty.*' matches no file.",
        ],
    ),
]
BEFORE_TRAINING = [
    on_files(
        "a missing data file",
        ["data.path={tmp}/emptyy.jsonl"],
        ["data.path=", "emptyy.jsonl", "does not exist", "Did you mean 'empty.jsonl'?"],
    ),
    on_files(
        "an empty data file", ["data.path={tmp}/empty.jsonl"], ["data.path=", "empty.jsonl", "row is needed"]
    ),
    on_files(
        "broken JSON", ["data.path={tmp}/broken.jsonl"], ["data.path=", "line 3: broken JSON at column "]
    ),
    on_files(
        "rows of an unknown shape",
        ["data.path={tmp}/strange.jsonl"],
        ["line 1", "question, solution", "Known forms", "data.columns.prompt=<field>"],
    ),
    on_files(
        "rows without an answer",
        ["data.path={tmp}/unanswered.jsonl"],
        ["unanswered.jsonl", "no assistant turns", "data.columns.response=<field>"],
    ),
    on_files("a misspelt form", ["data.format=alpacca"], ["data.format='alpacca'", "Did you mean 'alpaca'?"]),
    on_files(
        "a missing model folder",
        ["model.path={tmp}/no-such-model"],
        ["model.path=", "no-such-model", "is not there.", "Give a model folder, a .gguf file or a Hub name."],
    ),
    on_files(
        "a folder without a model",
        ["model.path={tmp}"],
        ["model.path=", "holds no config.json"],
    ),
    Case(
        "a Hub model without a network",
        ["model=llama3_2_1b"],
        ["model=llama3_2_1b", "'meta-llama/Llama-3.2-1B-Instruct'", "cannot be reached", "model.path=DIR"],
        NO_HUB,
    ),
    on_files(
        "examples longer than the model allows",
        ["data.max_length=512"],
        ["data.max_length=512", "use 256 or less"],
    ),
    on_files(
        "a column that is not there, before the model is looked at",
        ["data.columns.text=body", "model.path={tmp}/no-such-model"],
        ["data.columns.text='body' is not a field of the first row."],
    ),
    on_files(
        "an outputs folder below a file of the system",
        ["run.outputs_dir=/dev/null/x"],
        ["run.outputs_dir=/dev/null/x cannot be written", "Choose another folder"],
    ),
    on_files(
        "an outputs folder that is a file, before the model is looked at",
        ["run.outputs_dir={tmp}/rows.txt", "model.path={tmp}/no-such-model"],
        ["run.outputs_dir=", "rows.txt cannot be written", "Choose another folder"],
    ),
    on_files(
        "a run to resume that is not there", ["resume=no-such-run"], ["resume=no-such-run is not a run."]
    ),
]
EVALUATE = [
    Case("no run", [], ["run is missing", "python evaluate.py run=RUN"]),
    Case("a misspelt key", ["rn=abc"], ["rn is unknown.", "Did you mean 'run'?"]),
    Case("a number out of range", ["run=a", "max_examples=0"], ["max_examples=0 is out of range."]),
    Case(
        "a misspelt run",
        ["run=2026-01-31_quik"],
        ["run=2026-01-31_quik is not a run.", "Did you mean '2026-01-31_quick'?", "The latest is"],
    ),
]

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Runs one of the commands with its outputs folder inside the test's own.

    In a process of its own where the environment matters; else in this one, which has imported torch.
    """

    def run(script: str, overrides: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        outputs = f"{OUTPUTS_KEY[script]}="
        given = any(override.startswith(outputs) for override in overrides)
        arguments = [script, *overrides, *([] if given else [f"{outputs}{tmp_path}/outputs"])]
        if environment:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=repository,
                env={**os.environ, "HF_HOME": f"{tmp_path}/hub", **environment},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        monkeypatch.chdir(repository)
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            runpy.run_path(script, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            HydraConfig.instance().cfg = None
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return run


def assert_refused(result: subprocess.CompletedProcess[str], says: Sequence[str]) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= MOST_LINES
    for fragment in says:
        assert fragment in result.stderr


def run_folders(outputs: Path) -> list[Path]:
    return [path for path in outputs.glob("*/*") if path.is_dir()]


def by_name(case: Case) -> str:
    return case.name.replace(",", "").replace(" ", "-")


@pytest.mark.parametrize("case", [*COMPOSITION, *BEFORE_TRAINING], ids=by_name)
def test_train_refuses_what_it_cannot_use(
    case: Case, command: Command, tmp_path: Path, tiny_model_dir: Path, rows_file: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    overrides = [o.format(tmp=tmp_path, model=tiny_model_dir, rows=rows_file) for o in case.overrides]

    result = command("train.py", overrides, **case.environment)

    assert_refused(result, case.says)
    assert run_folders(tmp_path / "outputs") == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_train_refuses_a_gpu_that_is_not_there(command: Command, tmp_path: Path) -> None:
    result = command("train.py", ["trainer.accelerator=gpu"])

    assert_refused(
        result, ["trainer.accelerator=gpu: no GPU was found", "Use trainer.accelerator=cpu or auto."]
    )
    assert run_folders(tmp_path / "outputs") == []


def test_train_refuses_the_name_of_another_run_and_leaves_that_run_alone(
    command: Command, tmp_path: Path, tiny_model_dir: Path, rows_file: Path
) -> None:
    other = tmp_path / "outputs" / "train" / "mine"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text("seed: 7\n")
    overrides = [o.format(model=tiny_model_dir, rows=rows_file) for o in GOOD]

    result = command("train.py", [*overrides, "run.name=mine"])

    assert_refused(result, ["mine exists already.", "Choose another name", "/mine"])
    assert run_folders(tmp_path / "outputs") == [other]
    assert [path.name for path in other.iterdir()] == ["config.yaml"]
    assert (other / "config.yaml").read_text() == "seed: 7\n"


@pytest.mark.parametrize("case", EVALUATE, ids=by_name)
def test_evaluate_refuses_what_it_cannot_use(case: Case, command: Command, tmp_path: Path) -> None:
    trained = tmp_path / "outputs" / "train" / "2026-01-31_quick"
    trained.mkdir(parents=True)
    (trained / "config.yaml").write_text("seed: 7\n")

    result = command("evaluate.py", case.overrides)

    assert_refused(result, case.says)
    assert run_folders(tmp_path / "outputs") == [trained]


def test_evaluate_refuses_a_run_without_an_adapter(command: Command, tmp_path: Path) -> None:
    trained = tmp_path / "outputs" / "train" / "half"
    trained.mkdir(parents=True)
    (trained / "config.yaml").write_text("seed: 7\n")

    result = command("evaluate.py", ["run=half"])

    assert_refused(result, ["run=half has no adapter yet.", f"python train.py resume={tmp_path}"])


@pytest.mark.parametrize(("script", "words"), [
    ("train.py", ["Groups and their choices", "model: gemma2_27b,", "r128, r16, ", "quant: fp4, int8, nf4"]),
    ("evaluate.py", ["python evaluate.py run=RUN"]),
])  # fmt: skip
def test_help_tells_how_to_use_the_command(command: Command, script: str, words: list[str]) -> None:
    result = command(script, ["--help"])

    assert result.returncode == 0
    assert result.stderr == ""
    for word in words:
        assert word in result.stdout


@pytest.mark.parametrize(("script", "argument", "code"), [
    ("train.py", "--help", 0),
    ("train.py", "lora.rank=3", 2),
    ("train.py", "lora.r=0", 2),
    ("train.py", "data=file data.path=no.jsonl dry_run=true", 2),
    ("evaluate.py", "--help", 0),
    ("evaluate.py", "max_examples=0", 2),
])  # fmt: skip
def test_help_and_refused_configs_do_not_wait_for_torch(
    repository: Path, tmp_path: Path, script: str, argument: str, code: int
) -> None:
    watch = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    program = f"import sys; sys.argv = {[script, *argument.split()]!r}\n{watch}"

    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == code
    assert result.stderr.splitlines()[-1] == "False"
