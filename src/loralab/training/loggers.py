"""Where metrics go: always `metrics.jsonl`, and W&B, TensorBoard or MLflow where they are chosen."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder

Rows = Sequence[Mapping[str, str]]
"""Answers to the prompts that are watched: `prompt`, `reference` and `answer` of each."""
WATCHED = "watch"
"""What tables of these answers are called."""


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


def finish_loggers() -> None:
    """Ends the W&B run, if any: the next run of a multirun would otherwise write into it."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def _wandb_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("wandb", "W&B"):
        import wandb
        from lightning.pytorch.loggers import WandbLogger

    class TableLogger(WandbLogger):
        """Keeps the table of answers, which grows with each validation, and the adapter."""

        answers: list[list[Any]]

        def show_answers(self, step: int, rows: Rows) -> None:
            """Shows all answers so far, with the new ones."""
            self.answers += [[step, *row.values()] for row in rows]
            self.log_table(WATCHED, ["step", *rows[0]], self.answers)

        def keep_adapter(self, adapter_dir: Path) -> None:
            """Uploads the folder as an artifact of the run."""
            self.experiment.log_artifact(str(adapter_dir), name=f"adapter-{run.run_id}", type="adapter")

    try:
        logger = TableLogger(
            project=config.logger.project,
            name=run.run_id,
            id=run.run_id,
            save_dir=str(run.path),
            offline=config.logger.mode == "offline",
            config=dataclasses.asdict(config),
            resume="allow",
            settings=wandb.Settings(silent=True),
        )
        # Lightning sets an option that W&B has given up and warns of.
        getattr(logger, "_wandb_init", {}).pop("anonymous", None)
        logger.answers = []
        _ = logger.experiment  # starts the run now, so that a missing login stops nothing later
    except (wandb.Error, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"logger=wandb cannot start: {reason}. Log in with `wandb login`, or use logger.mode=offline."
        ) from error
    return logger


def _tensorboard_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("tensorboard", "TensorBoard"):
        import tensorboard  # noqa: F401
        from lightning.pytorch.loggers import TensorBoardLogger

    class TextLogger(TensorBoardLogger):
        """Shows the answers of each validation as text."""

        def show_answers(self, step: int, rows: Rows) -> None:
            """Shows a text for each prompt."""
            for number, row in enumerate(rows):
                shown = "\n\n".join(f"**{name}**: {text}" for name, text in row.items())
                self.experiment.add_text(f"{WATCHED}/{number}", shown, step)

    logger = TextLogger(run.path, name="", version=TENSORBOARD_DIR, default_hp_metric=False)
    logger.log_hyperparams(dataclasses.asdict(config))
    return logger


def _mlflow_logger(config: TrainConfig, run: RunFolder) -> Logger:
    with _needs("mlflow", "MLflow"):
        import mlflow  # noqa: F401
        from lightning.pytorch.loggers import MLFlowLogger
        from mlflow.exceptions import MlflowException

    class StoreLogger(MLFlowLogger):
        """Keeps the table of answers and the adapter among the files of the run."""

        def show_answers(self, step: int, rows: Rows) -> None:
            """Adds the answers to the table."""
            columns: dict[str, list[Any]] = {"step": [step] * len(rows)}
            columns |= {name: [row[name] for row in rows] for name in rows[0]}
            self.experiment.log_dict(self.run_id, columns, f"{WATCHED}/{step}.json")

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
            run_id=_mlflow_run(uri, config.logger.project, run.run_id),
            tracking_uri=uri,
            artifact_location=(run.path / "mlflow").as_uri() if uri.startswith("sqlite:") else None,
        )
        logger.log_hyperparams(dataclasses.asdict(config))
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"logger=mlflow cannot start: {reason}. Give another logger.uri.") from error
    return logger


def _mlflow_run(uri: str, project: str, name: str) -> str | None:
    """Finds the MLflow run that a resumed run began; None where there is none."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'", max_results=1)
    return str(found[0].info.run_id) if found else None


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
