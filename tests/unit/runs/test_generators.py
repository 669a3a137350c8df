import random
from pathlib import Path

import numpy as np
import torch

from loralab.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from loralab.runs.generators import random_state, restore_random_state

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.standard_normal()),
        float(torch.rand(1)),
    ]


def test_every_generator_repeats_its_draws_through_a_checkpoint(tmp_path: Path) -> None:
    draw()  # an odd number of normal draws leaves one waiting
    save_checkpoint(tmp_path / "step-1", Checkpoint({"a": torch.zeros(1)}, {"random": random_state(CPU)}, {}))
    first = draw()
    assert draw() != first
    restore_random_state(load_checkpoint(tmp_path / "step-1").state["random"], CPU)
    assert draw() == first
