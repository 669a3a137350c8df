import pytest
from tests.unit.model.tiny_models import build

from loralab.errors import ModelError
from loralab.model.adapters.origin import base_facts, check_same_base


def test_a_base_that_only_moved_is_the_same() -> None:
    model = build("llama")
    model.name_or_path = "/models/here/tiny"
    facts = base_facts(model)
    assert facts["hidden_size"] == 32
    check_same_base({**facts, "name": "/elsewhere/tiny"}, model)
    check_same_base({}, model)


def test_another_name_or_size_is_refused() -> None:
    model = build("llama")
    model.name_or_path = "org/one"
    facts = base_facts(model)
    with pytest.raises(
        ModelError, match=r"was trained on org/two, this run loads org/one: their names differ"
    ):
        check_same_base({**facts, "name": "org/two"}, model)
    with pytest.raises(ModelError, match=r"num_hidden_layers 3 there, 2 here\. Give model\.path"):
        check_same_base({**facts, "num_hidden_layers": 3}, model)
