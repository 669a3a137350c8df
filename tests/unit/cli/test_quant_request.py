"""The words of `loralab model quant-report`."""

import pytest

from loralab.cli.quant_request import make_quant_request
from loralab.errors import ConfigError


def test_words_go_to_their_groups() -> None:
    request = make_quant_request(
        [
            "model=7",
            "model.trust_remote_code=true",
            "quant.double_quant=false",
            "quant.skip_modules=[down_proj, layers.0]",
            "quant.int8_threshold=0",
            "trainer.precision=fp32",
            "max_examples=3",
            "data.columns.prompt=ask",
        ],
        "hub:owner/rows",
        "none,nf4,int8",
    )
    assert (request.model.path, request.model.trust_remote_code) == ("7", True)
    assert request.trainer.precision == "fp32"
    none, nf4, int8 = request.quants
    assert (none.name, none.skip_modules) == ("none", [])
    assert (nf4.double_quant, nf4.skip_modules, nf4.int8_threshold) == (False, ["down_proj", "layers.0"], 6.0)
    assert (int8.skip_modules, int8.int8_threshold) == (["down_proj", "layers.0"], 0.0)
    assert request.data is not None
    assert (request.data.config.max_examples, request.data.config.columns.prompt) == (3, "ask")


def test_the_embedded_model_is_the_default() -> None:
    assert make_quant_request([], None, "nf4").model.path is None
    assert make_quant_request(["model=embedded"], None, "nf4").model.path is None


def test_full_precision_is_added_where_rows_are_compared() -> None:
    assert [quant.name for quant in make_quant_request([], "hub:owner/rows", "nf4").quants] == ["none", "nf4"]
    assert [quant.name for quant in make_quant_request([], None, "nf4, fp4").quants] == ["nf4", "fp4"]


@pytest.mark.parametrize(
    ("words", "schemes", "says"),
    [
        (["rows.jsonl"], "nf4", "'rows.jsonl' is no option"),
        (["model.pth=x"], "nf4", "model.pth is unknown here. Did you mean 'model.path'?"),
        (["quant.name=nf4"], "nf4", "quant.name is unknown here."),
        (["quant.double_quant=maybe"], "nf4", "quant.double_quant='maybe' is not true or false."),
        (["quant.skip_modules=down_proj"], "nf4", "quant.skip_modules="),
        (["quant.compute_dtype=fp8"], "nf4", "quant.compute_dtype='fp8' is unknown."),
        (["quant.int8_threshold=-1"], "int8", "quant.int8_threshold=-1.0 is out of range."),
        (
            ["quant.compute_dtype=fp16"],
            "int8,none",
            "quant.compute_dtype has no effect with --schemes int8,none",
        ),
        (["max_examples=3"], "nf4", "max_examples=3 is about rows. Name them with --data PATH."),
        ([], "nf5", "--schemes: 'nf5' is unknown. Did you mean 'nf4'?"),
        ([], "nf4,nf4", "--schemes names nf4 twice."),
        ([], ",", "--schemes is empty."),
    ],
)
def test_wrong_words_are_refused(words: list[str], schemes: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_quant_request(words, None, schemes)
    assert says in str(error.value)


def test_a_wrong_option_of_the_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_exmples is unknown"):
        make_quant_request(["max_exmples=3"], "rows.jsonl", "nf4")
