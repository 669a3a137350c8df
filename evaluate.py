"""Compare a trained adapter with its base model on the held-out test split: `python evaluate.py --help`."""

from typing import TYPE_CHECKING

import hydra

from loralab.config.load import exit_codes, load_evaluate, register_schemas
from loralab.config.schema import EvaluateConfig
from loralab.runs.allocator import preload
from loralab.runs.folder import check_writable

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(config: "DictConfig") -> None:
    """Evaluates one run."""
    with exit_codes(EvaluateConfig):
        settings = load_evaluate(config)
        check_writable(settings.outputs_dir, "outputs_dir")
        from loralab.training.reevaluate import evaluate_run  # imports torch, which --help need not wait for

        evaluate_run(settings)


if __name__ == "__main__":
    preload()
    register_schemas()
    with exit_codes(EvaluateConfig):
        main()
