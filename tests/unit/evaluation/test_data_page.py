import dataclasses
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from rich.console import Console

from loralab.data.gate import Ledger
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.records import Conversation, Message
from loralab.data.report import DataFile, DataReport, SourceReport
from loralab.data.tally import Removals, RemovedRow, Tally
from loralab.evaluation import data_rows
from loralab.evaluation.data_facts import (
    Arrangement,
    DataFacts,
    MixtureLine,
    PlanFacts,
    check_masks,
    show_examples,
)
from loralab.evaluation.data_page import render_data_page, write_data_page
from loralab.evaluation.data_tables import print_facts

EVIL = "<script>alert('x')</script>"
TEXT = "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n<b> two<|im_end|>\n"
LEDGER = Ledger(
    rows=40, kept=39, truncated=1, dropped=1, examples=39, tokens=4000, supervised_tokens=1000,
    supervised_tokens_lost=77, length_p50=90.0, length_max=200,
    histogram={"edges": [0, 100, 200, 300], "counts": [30, 9, 1]},
)  # fmt: skip
PLAN = PlanFacts(
    model="tiny on cpu", num_adapter=512, num_parameters=10_000, total_steps=12, steps_per_epoch=6,
    epochs=2.0, validations=3, val_interval=4, tokens_per_step=96.0, padding=0.25,
    memory_bytes={"linear weights": 3 * 2**30, "activations": 2**29}, memory_note="4 x 24 tokens",
    free_bytes=8 * 2**30, time_s=750.0, flops_per_s=2e11, efficiency=0.3,
)  # fmt: skip


class Page(HTMLParser):
    """Collects the elements of a page, and the titles of the marked and outlined tokens."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.learned, self.special, self.text = [], [], [], []
        self.links = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href") and value]
        if "title" in attributes:
            place = int(attributes["title"].rpartition(" ")[2])
            if tag == "mark":
                self.learned.append(place)
            if "special" in attributes.get("class", ""):
                self.special.append(place)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def facts(tokenizer):
    """A clean data set of one source: nothing left out, nothing found."""
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    answer = len(tokenizer(TEXT[: TEXT.index("<b>")], add_special_tokens=False).input_ids)
    labels = [IGNORE_INDEX] * answer + ids[answer:-1] + [IGNORE_INDEX]
    row = Conversation((Message("user", "one"), Message("assistant", "<b> two")), "rows.jsonl", 1)
    example = Example(ids, labels, row)
    return DataFacts(
        title="a run",
        report=DataReport(
            [SourceReport("rows", "train", "openai", Tally(40))], {"train": Tally(40)}, {"train": LEDGER}
        ),
        files=[DataFile("rows.jsonl", "f" * 64)],
        max_length=200,
        checks=[check_masks("train", [example], tokenizer)],
        examples=show_examples([example], ["rows"], tokenizer),
        bos_token="<|im_start|>",
        chat_template="{{ messages }}",
        config_text="seed: 0",
        arrangement=Arrangement("packed", 20, 0.975),
        plan=PLAN,
    )


@pytest.fixture
def dirty(facts):
    """The same with rows left out, findings and overlaps, whose text is HTML."""
    row = RemovedRow(f"{EVIL}.jsonl", "line 7", f"copies {EVIL}", f"begins {EVIL} \ud800")
    report = DataReport(
        [
            SourceReport(
                f"a {EVIL}", "train", EVIL, Tally(40, {"duplicate": Removals(9, [row])}), {"email": 4}, 3,
                {"email": [dataclasses.replace(row, reason="", excerpt="to [EMAIL]")]}, f"found: {EVIL}", 40,
                {
                    "train": Tally(30, {"over_length": Removals(1, [row])}),
                    "val": Tally(1, {"over_length": Removals(1, [row])}),
                },
                LEDGER,
            ),
            SourceReport("b[red]", "train", "openai", Tally(10), ledger=LEDGER),
        ],
        {"train": Tally(40, {"over_length": Removals(2, [row])})},
        {"train": LEDGER},
        [row],
        1234,
        [SourceReport(f"tests/{EVIL[:8]}.jsonl", "benchmark", "prompts", Tally(55))],
    )  # fmt: skip
    return dataclasses.replace(
        facts, title=EVIL, report=report, chat_template=EVIL, config_text=EVIL, bos_token=EVIL,
        files=[DataFile(EVIL, "f" * 64)],
        mixture=[MixtureLine(EVIL, 12, 30, 2, 3, 0, 600), MixtureLine("b[red]", 25, 10, 0, 1, 15, 200)],
    )  # fmt: skip


def printed(facts, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"), highlight=False)  # noqa: SIM115
    print_facts(console, facts)
    return console.export_text()


def test_the_page_marks_exactly_the_learned_tokens(facts):
    example = facts.examples[0]
    expected = [token.position for token in example.tokens if token.label != IGNORE_INDEX]
    page = Page(render_data_page(facts))
    assert page.learned == expected
    assert "".join(example.tokens[place].text for place in page.learned) == "<b> two<|im_end|>"


def test_the_page_outlines_special_tokens(facts):
    page = Page(render_data_page(facts))
    tokens = facts.examples[0].tokens
    assert [tokens[place].text for place in page.special] == [
        "<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"
    ]  # fmt: skip


def test_nothing_of_the_rows_becomes_markup(dirty):
    page = Page(render_data_page(dirty))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "".join(page.text).count(EVIL) >= 10


def test_the_page_loads_nothing(dirty):
    page = Page(render_data_page(dirty))
    assert all(link.startswith(("#", "data:")) for link in page.links)


def test_a_lone_surrogate_does_not_stop_the_page(dirty, tmp_path):
    path = write_data_page(tmp_path / "plan.html", dirty)
    assert "begins" in path.read_text(encoding="utf-8")
    assert [each.name for each in tmp_path.iterdir()] == ["plan.html"]


def test_a_clean_data_set_is_said_to_be_clean(facts):
    text = "".join(Page(render_data_page(facts)).text)
    assert "None: every row that was read is used." in text
    assert "No personal data or secrets were found" in text
    assert "No overlap" in text


def test_what_was_not_looked_for_is_not_said_to_be_absent(facts):
    off = dataclasses.replace(facts, privacy="none", contamination="none")
    text = "".join(Page(render_data_page(off)).text)
    assert "No personal data" not in text
    assert "No overlap" not in text
    assert text.count("not looked for") == 2


def test_removed_rows_findings_and_overlaps_are_listed(dirty):
    text = "".join(Page(render_data_page(dirty)).text)
    assert "duplicate: 9" in text
    assert "over_length: 2" in text
    assert "after the split: 1 train, 1 val" in text
    assert "1,234 training rows overlap" in text
    assert re.search(r"email\s*4\b", text)
    assert "4 values in 3 rows: left as they are (data.privacy.action=report)" in text
    assert "to [EMAIL]" in text


def test_without_a_plan_the_page_is_about_the_data_alone(facts):
    text = "".join(Page(render_data_page(dataclasses.replace(facts, plan=None))).text)
    assert "39 training examples, 25% of their 4,000 tokens learned" in text
    assert "steps" not in text.partition("What is learned")[0].partition("</style>")[2]
    assert "memory" not in text.lower().partition("</style>")[2]


def test_rows_that_were_never_rendered_still_make_a_page(facts):
    bare = dataclasses.replace(
        facts, report=dataclasses.replace(facts.report, ledgers={}), checks=[], examples=[], plan=None,
        chat_template="", config_text="", arrangement=None,
    )  # fmt: skip
    text = "".join(Page(render_data_page(bare)).text)
    assert "40 of 40 rows kept" in text
    assert "Mask check" not in text
    assert "mask check" not in printed(bare)


def test_the_histogram_is_drawn_with_the_limit(facts):
    page = render_data_page(facts)
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    description = ET.fromstring(svg).attrib["aria-label"]
    assert description == (
        "Lengths of 40 train rows from 0 to below 300 tokens, most of them (30) from 0 to below 100; "
        "data.max_length is 200."
    )
    assert "data.max_length 200" in svg
    assert "further right" not in svg


def test_a_far_limit_does_not_squeeze_the_histogram(facts):
    page = render_data_page(dataclasses.replace(facts, max_length=5000))
    assert "data.max_length 5,000, further right" in page


def test_the_middle_of_a_long_example_is_left_out(facts):
    long = dataclasses.replace(facts.examples[0], tokens=facts.examples[0].tokens * 100)
    page = render_data_page(dataclasses.replace(facts, examples=[long]))
    left_out = len(long.tokens) - 1024
    assert f"… {left_out:,} tokens …" in page
    assert Page(page).tags.count("mark") <= 1024


def test_sources_and_splits_are_written_as_by_hand(dirty):
    assert data_rows.source_rows(dirty.report) == [
        (f"a {EVIL}", "train", EVIL, "40", "9 duplicate", "2 over_length", "29"),
        ("b[red]", "train", "openai", "10", "none", "none", "10"),
        (f"{EVIL[:8]}.jsonl", "benchmark", "prompts", "55", "none", "none", "55"),
    ]
    assert data_rows.source_notes(dirty.report) == [
        (f"a {EVIL}", "at most 40 of its rows (data.max_examples)"),
        (f"a {EVIL}", f"{EVIL} (found: {EVIL})"),
    ]
    assert data_rows.ledger_rows(dirty.report)[1] == (
        "b[red]", "40", "39", "1", "1", "4,000", "1,000", "77"
    )  # fmt: skip
    assert data_rows.split_rows(dirty.report) == [
        ("train", "40", "39", "4,000", "1,000", "25.0%", "90", "200", "1", "1", "77")
    ]


def test_rows_left_out_after_the_split_are_listed_once_under_their_source(dirty):
    found = [(group.where, group.check, group.count) for group in data_rows.removed_groups(dirty.report)]
    assert found == [
        (f"source a {EVIL}", "duplicate", 9),
        (f"source a {EVIL}, after the split: 1 train, 1 val", "over_length", 2),
    ]


def test_rows_that_are_counted_by_split_alone_are_listed_under_it(dirty):
    bare = [dataclasses.replace(source, splits={}) for source in dirty.report.sources]
    groups = data_rows.removed_groups(dataclasses.replace(dirty.report, sources=bare))
    assert [(group.where, group.count) for group in groups][1:] == [("split train", 2)]


def test_one_source_has_no_ledger_of_its_own(facts):
    assert data_rows.ledger_rows(facts.report) == []


def test_the_mixture_is_written_as_by_hand(dirty):
    assert data_rows.mixture_rows(dirty.mixture) == [
        (EVIL, "12", "30", "2 to 3 times", "0", "75.0%", "75.0%"),
        ("b[red]", "25", "10", "40% once", "15", "25.0%", "25.0%"),
    ]


@pytest.mark.parametrize(
    ("available", "taken", "fewest", "most", "text"),
    [
        (0, 0, 0, 0, "never"),
        (5, 0, 0, 0, "never"),
        (5, 5, 1, 1, "once"),
        (5, 10, 2, 2, "2 times"),
        (5, 7, 1, 2, "1 to 2 times"),
        (1000, 999, 0, 1, "99.9% once"),
    ],
)
def test_the_times_a_row_is_seen_are_said_in_words(available, taken, fewest, most, text):
    assert data_rows.times_seen(MixtureLine("a", available, taken, fewest, most, 0, 0)) == text


@pytest.mark.parametrize(
    ("action", "became"),
    [("mask", "replaced"), ("drop", "left out with the rows"), ("report", "left as they are")],
)
def test_what_became_of_personal_data_is_said(dirty, action, became):
    assert data_rows.finding_line(dirty.report, action) == (
        f"4 values in 3 rows: {became} (data.privacy.action={action})"
    )


def test_the_plan_states_its_assumption():
    figures = {figure.label: figure for figure in data_rows.plan_figures(PLAN)}
    assert figures["time, estimated"].value == "about 12 min"
    assert "30% (assumed) of this machine's 200 GFLOP/s (measured)" in figures["time, estimated"].note
    assert figures["memory, estimated"].value == "about 3.5 GiB"
    assert figures["memory, estimated"].note == "of 8.0 GiB free here"
    assert figures["tokens per step"].note == "on average, 25.0% of it padding"


def test_a_plan_that_does_not_fit_says_so():
    figures = data_rows.plan_figures(dataclasses.replace(PLAN, free_bytes=2**30))
    assert figures[-1].note == "of 1.0 GiB free here: more than that"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (90, "1.5 min"),
        (750, "12 min"),
        (5400, "1.5 h"),
        (86400, "24 h"),
        (864000, "10 days"),
    ],
)
def test_durations_are_short(seconds, text):
    assert data_rows.duration(seconds) == text


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_the_same_facts(dirty, width):
    text = printed(dirty, width)
    assert all(len(line) <= width for line in text.splitlines() if EVIL not in line)
    for part in (
        "duplicate: 9",
        "b[red]",
        "4,000",
        "77",
        "1,234 training rows",
        "to [EMAIL]",
        "4 values in 3 rows",
        "2 to 3",
        "data.max_examples",
        "after the split",
        "<b> two<|im_end|>",
        "12 min",
    ):
        assert part in text


def test_the_sources_stay_whole_in_a_terminal_of_80_columns(facts):
    row = RemovedRow("a.jsonl", "line 7", "long")
    left_out, later = (
        Tally(207_865, {"duplicate": Removals(1254, [row])}),
        Tally(9, {"over_length": Removals(12, [row])}),
    )
    source = SourceReport("sharegpt_gpt4_filtered", "train", "sharegpt_preference", left_out,
                          reason="found: has them", splits={"train": later})  # fmt: skip
    lines = printed(dataclasses.replace(facts, report=DataReport([source], {}, {}))).splitlines()
    assert "│ sharegpt_gpt4_filtered │ train │ 207,865 │    1,254 │       12 │ 206,599 │" in lines
    assert "left out later: after the split, for overlap, special tokens, template or length" in lines
    assert "sharegpt_gpt4_filtered: sharegpt_preference (found: has them)" in lines


def test_the_terminal_says_that_no_row_was_left_out(facts):
    assert "left out\nno rows\n" in printed(facts)
