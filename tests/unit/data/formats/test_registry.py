"""The list of forms."""

import ast
import inspect
import pickle
import re

import pytest

from loralab.config import data
from loralab.config.data import ColumnsConfig
from loralab.data.formats.registry import FORMATS, check_format
from loralab.errors import DataError


def documented_forms() -> list[str]:
    """The names in the docstring under `DataConfig.format`."""
    module = ast.parse(inspect.getsource(data))
    (config,) = [n for n in module.body if isinstance(n, ast.ClassDef) and n.name == "DataConfig"]
    fields = [n.target.id if isinstance(n, ast.AnnAssign) else "" for n in config.body]  # type: ignore[union-attr]
    docstring = ast.literal_eval(config.body[fields.index("format") + 1].value)  # type: ignore[attr-defined]
    return re.findall(r"\w+", docstring.partition("a form:")[2])


def test_forms_are_those_that_the_configuration_documents() -> None:
    assert list(FORMATS) == documented_forms()


def test_every_column_is_a_key_of_the_configuration() -> None:
    taken = {name for form in FORMATS.values() for name in form.columns}
    assert taken == set(vars(ColumnsConfig()))


def test_forms_travel_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(FORMATS["openai"])) == FORMATS["openai"]


def test_unknown_form_names_the_close_one() -> None:
    check_format("auto")
    with pytest.raises(DataError) as error:
        check_format("preferences")
    assert str(error.value) == (
        "data.format='preferences' is unknown. Did you mean 'preference'? Known: auto, alpaca, sharegpt, "
        "openai, prompt_completion, question_answer, prompts, text, preference, sharegpt_preference, "
        "unpaired."
    )
