from pathlib import Path

import pytest

from loralab.config.model import ModelConfig
from loralab.errors import ModelError
from loralab.model.location import loading_failed, model_location


def test_a_missing_folder_names_its_closest_sibling(tiny_model_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"is not there. Did you mean 'tiny-llama'"):
        model_location(ModelConfig(path=str(tiny_model_dir.parent / "tiny-lama")))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config.json"):
        model_location(ModelConfig(path=str(tmp_path)))


def test_a_folder_of_gguf_files_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "model.Q4_K_M.gguf").touch()
    with pytest.raises(ModelError, match=r"Name one: model.path=.*model.Q4_K_M.gguf"):
        model_location(ModelConfig(path=str(tmp_path)))


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(ModelError, match=r"holds an adapter. Give the model that it was made for"):
        model_location(ModelConfig(path=str(tmp_path)))


def test_a_missing_gguf_file_is_not_taken_for_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"model.path='llama.gguf' is not there"):
        model_location(ModelConfig(path="llama.gguf"))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelError, match="is neither a folder nor a GGUF file"):
        model_location(ModelConfig(path=str(file)))


def test_a_hub_name_is_left_as_it_is() -> None:
    assert model_location(ModelConfig(path="owner/no-such-model")) == "owner/no-such-model"


def test_a_model_with_code_of_its_own_names_the_setting() -> None:
    error = ValueError("contains custom code. Please pass the argument `trust_remote_code=True`")
    message = loading_failed(ModelConfig(path="owner/x"), "owner/x", error)
    assert message.endswith("then set model.trust_remote_code=true.")


def test_what_lies_here_has_no_revision(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    for path in (tiny_model_dir, tmp_path / "x.gguf"):
        with pytest.raises(ModelError, match=r"model.revision='v2' is about models on the Hub"):
            model_location(ModelConfig(path=str(path), revision="v2"))
    assert model_location(ModelConfig(path="owner/model", revision="v2")) == "owner/model"
