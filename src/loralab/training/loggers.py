"""Where metrics go: always `metrics.jsonl`, and W&B, TensorBoard or MLflow where they are chosen."""

import contextlib
import dataclasses
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from loralab.callbacks.watch import WATCHED
from loralab.config.explanation import leaf_keys
from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder, read_json, write_json

Rows = Sequence[Mapping[str, Any]]
"""Prompts with their reference and answers, all with the same columns."""
SAMPLES = "samples"
"""What tables of answers of the base and the tuned model are called."""
WANDB_STEP = "trainer/global_step"
"""What Lightning calls the step of a line in W&B."""
MLFLOW_RUN = "mlflow_run"
"""Where the manifest keeps the id of the run in MLflow."""
LONGEST_PARAM = 250
"""Characters of a parameter in MLflow; older servers take no more."""


class JsonlLogger(Logger):
    """Appends one JSON object per call to a file, flushed, so that a killed run keeps its lines."""

    takes_words = True
    """Whether a line may hold more than numbers."""

    def __init__(self, path: Path) -> None:
        """Appends to `path`."""
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def version(self) -> str:
        """The run's id."""
        return self.path.parent.name

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Appends a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: `config.yaml` holds them."""


def build_loggers(config: TrainConfig, run: RunFolder) -> list[Logger]:
    """Builds the loggers that `config.logger` names.

    Raises:
        ConfigError: What is chosen is not installed, or cannot start.
    """
    build = BUILDERS.get(config.logger.name)
    chosen = [build(config, run)] if build is not None and config.logger.mode != DISABLED else []
    return [JsonlLogger(run.metrics_path), *chosen]


def keep_adapter(loggers: Sequence[Logger], adapter_dir: Path) -> None:
    """Gives the adapter to the loggers that keep files."""
    for logger in loggers:
        if hasattr(logger, "keep_adapter"):
            logger.keep_adapter(adapter_dir)


def show_samples(loggers: Sequence[Logger], step: int, rows: Rows) -> None:
    """Shows answers of the base and the tuned model side by side where a logger has tables."""
    for logger in loggers:
        if rows and hasattr(logger, "show_rows"):
            logger.show_rows(SAMPLES, step, rows)


def finish_loggers(summary: Mapping[str, Any]) -> None:
    """Ends the W&B run, if any: the next run of a multirun would otherwise write into it.

    Args:
        summary: The end of the run, which W&B compares runs by instead of by their last lines.
    """
    if "wandb" not in sys.modules:
        return
    wandb = sys.modules["wandb"]
    if wandb.run is not None:
        wandb.run.summary.update({name: value for name, value in summary.items() if value is not None})
    wandb.finish()


def _wandb_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("wandb", "W&B"):
        import wandb
        from lightning.pytorch.loggers import WandbLogger

    class TableLogger(WandbLogger):
        """Keeps tables, which grow with each validation, and the adapter."""

        shown: dict[str, list[list[Any]]]

        def show_rows(self, table: str, step: int, rows: Rows) -> None:
            """Shows a table so far, with the new rows."""
            known = self.shown.setdefault(table, [])
            known += [[step, *row.values()] for row in rows]
            self.log_table(table, ["step", *rows[0]], known, step=step)

        def keep_adapter(self, adapter_dir: Path) -> None:
            """Uploads the folder as an artifact of the run."""
            label = re.sub(r"[^a-zA-Z0-9_.-]+", "-", run.run_id)
            self.experiment.log_artifact(str(adapter_dir), name=f"adapter-{label}", type="adapter")

    try:
        # Not by Lightning, which hands on an option that W&B warns of. A missing login stops the run here.
        begun = wandb.init(
            project=config.logger.project,
            name=run.run_id,
            id=run.run_id,
            dir=run.path,
            mode="offline" if config.logger.mode == "offline" else None,
            config=dataclasses.asdict(config),
            resume="allow",
            settings=wandb.Settings(silent=True),
        )
    except (wandb.Error, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"logger=wandb cannot start: {reason}. Log in with `wandb login`, or use logger.mode=offline."
        ) from error
    begun.define_metric(WANDB_STEP)
    begun.define_metric("*", step_metric=WANDB_STEP, step_sync=True)
    logger = TableLogger(project=config.logger.project, save_dir=run.path, experiment=begun)
    # Those from before a resumed run was stopped: a table is always shown whole.
    logger.shown = {WATCHED: [list(json.loads(line).values()) for line in _lines(run.watch_path)]}
    return logger


def _tensorboard_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("tensorboard", "TensorBoard"):
        import tensorboard  # noqa: F401
        from lightning.pytorch.loggers import TensorBoardLogger

    class TextLogger(TensorBoardLogger):
        """Shows rows of tables as text."""

        def show_rows(self, table: str, step: int, rows: Rows) -> None:
            """Shows a text for each row."""
            for number, row in enumerate(rows):
                shown = "\n\n".join(f"**{name}**: {text}" for name, text in row.items())
                self.experiment.add_text(f"{table}/{number}", shown, step)

    logger = TextLogger(run.path, name="", version=TENSORBOARD_DIR, default_hp_metric=False)
    logger.log_hyperparams(dataclasses.asdict(config))
    return logger


def _mlflow_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("mlflow", "MLflow"):
        import mlflow  # noqa: F401
        from lightning.pytorch.loggers import MLFlowLogger
        from mlflow.exceptions import MlflowException

    class StoreLogger(MLFlowLogger):
        """Keeps tables and the adapter among the files of the run."""

        def show_rows(self, table: str, step: int, rows: Rows) -> None:
            """Adds the rows of a step."""
            columns: dict[str, list[Any]] = {"step": [step] * len(rows)}
            columns |= {name: [row[name] for row in rows] for name in rows[0]}
            self.experiment.log_dict(self.run_id, columns, f"{table}/{step}.json")

        def keep_adapter(self, adapter_dir: Path) -> None:
            """Uploads the folder."""
            self.experiment.log_artifacts(self.run_id, str(adapter_dir), "adapter")

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = config.logger.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path / 'mlflow.db'}"
    try:
        logger = StoreLogger(
            experiment_name=config.logger.project,
            run_name=run.run_id,
            run_id=_mlflow_run(uri, run),
            tracking_uri=uri,
            artifact_location=(run.path / "mlflow").as_uri() if uri.startswith("sqlite:") else None,
        )
        _describe(logger, config)
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"logger=mlflow cannot start: {reason}. Give another logger.uri.") from error
    write_json(run.manifest_path, {**read_json(run.manifest_path), MLFLOW_RUN: logger.run_id})
    return logger


def _mlflow_run(uri: str, run: RunFolder) -> str | None:
    """Returns the MLflow run that a resumed run began; None where there is none in this store."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    begun = read_json(run.manifest_path).get(MLFLOW_RUN)
    if begun is None:
        return None
    try:
        is_there = MlflowClient(uri).get_run(begun).info.lifecycle_stage == "active"
    except MlflowException:
        return None
    return str(begun) if is_there else None


def _describe(logger: Any, config: TrainConfig) -> None:
    """Logs the config to MLflow, and that the run is running, which a stopped one was not."""
    client, run_id = logger.experiment, logger.run_id
    data = client.get_run(run_id).data
    new, changed = described(config, data.params, data.tags)
    logger.log_hyperparams(new)
    for key, value in changed.items():
        client.set_tag(run_id, key, value)
    client.update_run(run_id, status="RUNNING")


def described(
    config: TrainConfig, params: Mapping[str, str], tags: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Says what MLflow is to be told of a config.

    Args:
        config: The config of now.
        params: What the MLflow run has: none of these can ever change.
        tags: Its tags.

    Returns:
        New parameters; and as tags `now/optim/lr`, values that a resumed run goes on with instead.
    """
    paths = {key: key.replace(".", "/") for key in leaf_keys(TrainConfig)}
    values = {path: str(attrgetter(key)(config))[:LONGEST_PARAM] for key, path in paths.items()}
    new = {path: value for path, value in values.items() if path not in params}
    known = {path: tags.get(f"now/{path}", params.get(path)) for path in values.keys() - new.keys()}
    return new, {f"now/{path}": values[path] for path, value in known.items() if value != values[path]}


def _lines(path: Path) -> list[str]:
    """Reads lines that hold something; not by `splitlines`, since answers may hold other line ends."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [line for line in text.split("\n") if line]


@contextlib.contextmanager
def _needs(extra: str, label: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"logger={extra} needs {label}. Run `pip install 'loralab[{extra}]'`, or use logger=local."
        ) from error


DISABLED, TENSORBOARD_DIR = "disabled", "tensorboard"
BUILDERS: dict[str, Callable[[TrainConfig, RunFolder], Logger]] = {
    "wandb": _wandb_logger,
    "tensorboard": _tensorboard_logger,
    "mlflow": _mlflow_logger,
}
"""Builders by `logger.name`; `local` needs none."""
