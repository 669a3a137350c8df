import pytest

from loralab.evaluation.matching import exact_match, explain_match

REFERENCE = '{"call": "set_timer", "minutes": 20, "label": "pasta"}'


@pytest.mark.parametrize(
    ("answer", "matches"),
    [
        (REFERENCE, True),
        ('{"label":"pasta","call":"set_timer","minutes":20}', True),
        (f"  {REFERENCE}\n", True),
        ('{"call": "set_timer", "minutes": "20", "label": "pasta"}', False),
        ('{"call": "set_timer", "minutes": 20.0, "label": "pasta"}', False),
        ('{"call": "set_timer", "minutes": 20}', False),
        ('{"call": "set_timer", "minutes": 20, "label": "pasta", "extra": null}', False),
        ('{"call": "set_timer", "minutes": 20, "label": "Pasta"}', False),
        (f"Here you are: {REFERENCE}", False),
        (REFERENCE[:-1], False),
        ("", False),
    ],
)
def test_json_answers_match_by_value_and_type(answer: str, matches: bool) -> None:
    assert exact_match(answer, REFERENCE) is matches


def test_true_is_not_one() -> None:
    assert not exact_match('{"on": 1}', '{"on": true}')
    assert not exact_match("[1, [2]]", "[1, [true]]")
    assert exact_match("[1, [2]]", "[1,[2]]")


def test_text_answers_match_but_for_outer_white_space() -> None:
    assert exact_match(" Paris\n", "Paris")
    assert not exact_match("paris", "Paris")
    assert not exact_match("7.0", "7")


def test_strictness_is_explained_where_a_reference_is_free_text() -> None:
    strict = "strict for free text, where a right answer in other words counts as wrong"
    assert (
        explain_match([REFERENCE, "[1]"]) == "exact match: the answer is the same JSON value as the reference"
    )
    assert explain_match([REFERENCE, "Paris"]).endswith(f"where that is JSON, the same value; {strict}")
    # A number stands in JSON as well, but is compared as text.
    assert explain_match(["18"]).endswith(strict)
