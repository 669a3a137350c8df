"""Fine-tune a language model with LoRA or QLoRA: `python train.py --help`."""

from typing import TYPE_CHECKING

import hydra

from loralab.config.load import exit_codes, load_train, register_schemas
from loralab.config.schema import TrainConfig
from loralab.data.sources.presence import config_faults
from loralab.runs.allocator import preload
from loralab.runs.folder import check_writable

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: "DictConfig") -> None:
    """Trains one run."""
    with exit_codes(TrainConfig):
        settings = load_train(config, config_faults)
        check_writable(settings.run.outputs_dir, "run.outputs_dir")
        from loralab.data.opening import check_forms  # imports NumPy

        check_forms(settings.data)
        from loralab.training.processes import (
            run_training,  # imports torch, which --help and bad configs need not wait for
        )

        run_training(settings)


if __name__ == "__main__":
    preload()
    register_schemas()
    with exit_codes(TrainConfig):
        main()
