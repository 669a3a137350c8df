"""Answers the same few prompts at each validation, so that a person can watch the model change."""

import json
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl

from loralab.modules.base import AdapterModule

WATCHED = "watch"
"""What loggers call tables of these answers."""
Answers = Callable[[], list[dict[str, str]]]
"""Returns a row with `prompt`, `reference` and `answer` for each prompt."""


class Watch(pl.Callback):
    """Appends the answers to a file."""

    def __init__(self, path: Path | None, answers: Answers) -> None:
        """Appends to `path`; None only answers, beside a process that needs this one for it."""
        self.path = path
        self.answers = answers

    def on_validation_end(self, trainer: pl.Trainer, pl_module: AdapterModule) -> None:  # type: ignore[override]
        """Answers with the weights that were validated."""
        self.record(trainer, pl_module.finished_steps)

    def record(self, trainer: pl.Trainer, step: int) -> None:
        """Answers the prompts and keeps the answers, here and in loggers that show tables."""
        rows = self.answers()
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.writelines(json.dumps({"step": step, **row}, ensure_ascii=False) + "\n" for row in rows)
        for logger in trainer.loggers:
            if hasattr(logger, "show_rows"):
                logger.show_rows(WATCHED, step, rows)
