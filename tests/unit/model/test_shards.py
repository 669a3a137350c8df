from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import modeling_utils

from loralab.model.shards import ReadCounter, ShardFile, reading_tensor_by_tensor


def test_tensors_of_every_size_and_dtype_are_read_as_they_were_written(tmp_path: Path) -> None:
    tensors = {
        "large": torch.randn(300, 100),
        "half": torch.randn(7, 3).bfloat16(),
        "bytes": torch.arange(250, dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(3.5, dtype=torch.float16),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    file = ShardFile(tmp_path / "model.safetensors", ReadCounter())
    assert set(file.keys()) == set(tensors)
    for name, expected in tensors.items():
        shard = file.get_slice(name)
        assert torch.equal(shard[...], expected)
        assert (shard.get_shape(), shard[...].dtype) == (list(expected.shape), expected.dtype)
    assert torch.equal(file.get_slice("large")[3:5], tensors["large"][3:5])
    # Each reading is a copy: writing to it changes neither the file nor the next reading.
    file.get_slice("large")[...].zero_()
    assert torch.equal(file.get_slice("large")[...], tensors["large"])


def test_a_file_that_ends_early_is_not_filled_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="ends before its last tensor"):
        ShardFile(path, ReadCounter()).get_slice("a")[...]


def test_transformers_gets_its_own_reader_back() -> None:
    original = modeling_utils.safe_open  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError), reading_tensor_by_tensor():
        assert modeling_utils.safe_open is not original  # type: ignore[attr-defined]
        raise RuntimeError
    assert modeling_utils.safe_open is original  # type: ignore[attr-defined]
