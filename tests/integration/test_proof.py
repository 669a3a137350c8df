"""`loralab resume-proof` tells a run that goes on exactly from one that does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError
from loralab.training.proof import in_this_process, prove_resume

QUICK = ("eval=none", "quant=none", "lora.dropout=0.2", "trainer.val_every=2")


def test_a_resumed_run_is_proved_equal(compose_tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    verdicts = prove_resume(compose_tiny(tmp_path, *QUICK), 2, tmp_path / "proof", in_this_process)
    assert {each.part: each.differences for each in verdicts} == {
        "weights": (),
        "optimizer state": (),
        "method's state": (),
        "callbacks": (),
        "random generators": (),
        "logged numbers": (),
        "summary": (),
    }
    assert all(each.num_values for each in verdicts)


def test_a_run_that_forgets_its_generators_is_found_out(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loralab.callbacks.restore.restore_random_state", lambda state, device: None)
    verdicts = prove_resume(compose_tiny(tmp_path, *QUICK), 1, tmp_path / "proof", in_this_process)
    different = {each.part for each in verdicts if each.differences}
    assert {"weights", "optimizer state", "random generators", "logged numbers"} <= different


def test_a_proof_of_several_processes_is_refused(
    compose_tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = compose_tiny(tmp_path, *QUICK, "trainer.devices=2")
    with pytest.raises(
        ConfigError, match=r"trainer\.devices=2 .*Use trainer\.devices=1 trainer\.num_nodes=1"
    ):
        prove_resume(config, 2, tmp_path / "proof", in_this_process)
