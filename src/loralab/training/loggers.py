"""Where metrics go: always `metrics.jsonl`, and W&B where it is chosen."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder


class JsonlLogger(Logger):
    """Appends one JSON object per call to a file, flushed, so that a killed run keeps its lines."""

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

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: `config.yaml` holds them."""


def build_loggers(config: TrainConfig, run: RunFolder) -> list[Logger]:
    """Builds the loggers that `config.logger` names.

    Raises:
        ConfigError: W&B is chosen and not installed, or cannot start.
    """
    loggers: list[Logger] = [JsonlLogger(run.metrics_path)]
    if config.logger.name == "wandb":
        loggers.append(_wandb_logger(config, run))
    return loggers


def finish_loggers() -> None:
    """Ends the W&B run, if any: the next run of a multirun would otherwise write into it."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def _wandb_logger(config: TrainConfig, run: RunFolder) -> Logger:
    try:
        import wandb
        from lightning.pytorch.loggers import WandbLogger
    except ImportError as error:
        raise ConfigError("logger=wandb needs W&B. Run `pip install 'loralab[wandb]'`.") from error
    try:
        logger = WandbLogger(
            project=config.logger.project,
            name=run.run_id,
            id=run.run_id,
            save_dir=str(run.path),
            offline=config.logger.mode == "offline",
            config=dataclasses.asdict(config),
            resume="allow",
            settings=wandb.Settings(silent=True),
        )
        _ = logger.experiment  # starts the run now, so that a missing login stops nothing later
    except (wandb.Error, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"logger=wandb cannot start: {reason}. Log in with `wandb login`, or use logger.mode=offline."
        ) from error
    return logger
