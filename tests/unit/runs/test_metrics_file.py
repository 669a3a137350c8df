from pathlib import Path

import pytest

from loralab.runs.metrics_file import cut_metrics, keep_until, settled_bytes

LINES = '{"step": 0, "v": 1}\n{"step": 1}\n{"step": 2}\n'


def test_what_came_after_a_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert settled_bytes(path) == 0
    path.write_text(LINES)
    length = settled_bytes(path)
    path.write_text(LINES + '{"step": 2, "validation": 1}\n{"step": 3}\n{"st')
    assert cut_metrics(path, length, 2) is None
    assert path.read_text() == LINES


def test_lost_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(LINES)
    warning = cut_metrics(path, len(LINES) + 5, 1)
    assert warning is not None
    assert "has lost lines since the checkpoint after step 1" in warning
    assert path.read_text() == '{"step": 0, "v": 1}\n{"step": 1}\n'


@pytest.mark.parametrize(("step", "kept"), [(0, '{"step": 0}\n'), (-1, "")])
def test_lines_after_a_step_and_half_lines_go(tmp_path: Path, step: int, kept: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\nnull\n{"loss": 2}\n{"step"')
    keep_until(path, step)
    assert path.read_text() == kept
