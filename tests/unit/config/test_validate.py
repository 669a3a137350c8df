"""Rules between groups."""

import pytest

from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig
from loralab.config.validate import validate_train
from loralab.errors import ConfigError


def test_the_embedded_model_has_no_revision() -> None:
    assert validate_train(TrainConfig(model=ModelConfig(path="owner/model", revision="v2"))) is None
    with pytest.raises(ConfigError, match=r"model.revision='v2' has no effect with the embedded model"):
        validate_train(TrainConfig(model=ModelConfig(revision="v2")))


def test_an_added_token_has_text() -> None:
    with pytest.raises(ConfigError, match=r"model.added_tokens holds an empty token. Give texts such as"):
        validate_train(TrainConfig(model=ModelConfig(added_tokens=["<call>", " "])))
