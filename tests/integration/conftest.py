"""Runs on the tiny random model, composed as the command line would."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from loralab.config.load import load_train, register_schemas
from loralab.config.schema import TrainConfig

Compose = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def compose_tiny(repository: Path, tiny_model_dir: Path, rows_file: Path) -> Compose:
    """Composes a config for a run of a dozen steps on the tiny model."""

    def compose_with(outputs_dir: Path, *overrides: str) -> TrainConfig:
        register_schemas()
        tiny = [
            f"model.path={tiny_model_dir}",
            "data=file",
            f"data.path={rows_file}",
            "data.test_fraction=0.2",
            "data.max_length=256",
            "trainer.precision=fp32",
            "trainer.batch_size=4",
            "trainer.max_steps=12",
            "trainer.val_every=4",
            "optim.lr=5e-3",
            "lora=r8",
            "callbacks=quiet",
            f"run.outputs_dir={outputs_dir}",
        ]
        with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
            return load_train(compose("train", [*tiny, *overrides]))

    return compose_with
