import random

from loralab.data.calls.augmentation import CLOSERS, OPENERS, add_remarks, invent_word, vary_filling


def test_invented_words_are_lower_case_and_repeat_with_the_seed() -> None:
    words = [invent_word(random.Random(seed)) for seed in range(200)]
    assert words == [invent_word(random.Random(seed)) for seed in range(200)]
    assert all(word.isalpha() and word.islower() for word in words)
    assert len(set(words)) > 190


def test_about_half_of_the_open_values_change_and_no_other() -> None:
    rng = random.Random(0)
    filling = {"item": "red apples", "quantity": 3, "list": "party"}
    varied = [vary_filling(filling, {"item": "item"}, rng) for _ in range(1000)]
    changed = [row["item"] for row in varied if row["item"] != "red apples"]
    assert 450 < len(changed) < 550
    assert all(str(item).startswith("red ") and len(str(item).split()) == 2 for item in changed)
    assert {(row["quantity"], row["list"]) for row in varied} == {(3, "party")}


def test_names_are_replaced_whole_and_capitalised() -> None:
    rng = random.Random(0)
    names = {str(vary_filling({"to": "Maria"}, {"to": "person"}, rng)["to"]) for _ in range(50)}
    assert len(names) > 20
    assert all(name.istitle() and " " not in name for name in names)


def test_remarks_surround_a_request_and_never_change_it() -> None:
    rng = random.Random(0)
    framed = [add_remarks("Play it.", rng) for _ in range(1000)]
    assert all("Play it." in text for text in framed)
    befores = {text.split("Play it.")[0].strip() for text in framed}
    afters = {text.split("Play it.")[1].strip() for text in framed}
    assert befores == {"", *OPENERS}
    assert afters == {"", *CLOSERS}
    assert add_remarks("play it", random.Random(1)).endswith("play it")
