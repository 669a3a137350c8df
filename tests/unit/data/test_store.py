"""What is written to disk and read back, against examples made in memory."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loralab.data.corpus import CorpusWriter
from loralab.data.masking import Encoded, make_example
from loralab.data.prepare import DAMAGED
from loralab.data.records import Conversation, Message
from loralab.data.serialization import record_to_json
from loralab.data.store import ExampleStore, common_prefix_of, example_columns, lengths_of, store_writer


def conversation(row: int) -> Conversation:
    return Conversation((Message("user", f"q{row}"), Message("assistant", f"a{row} é")), "rows.jsonl", row)


ENCODED = [
    Encoded([5, 6, 7], ((1, 3, 1.0),)),
    Encoded([8, 9], ((0, 2, 1.0),)),
    Encoded([1, 2, 3, 4, 5], ((1, 2, 0.5), (3, 5, 2.0))),
    Encoded([4], ()),
]
SOURCES = [0, 0, 1, 2]


@pytest.fixture
def store(tmp_path: Path) -> ExampleStore:
    path = tmp_path / "examples.arrow"
    conversations = [conversation(row) for row in range(1, 5)]
    with store_writer(path) as write:
        # Batches of different sizes, as chunks give them.
        for part in (slice(0, 1), slice(1, 4)):
            write(example_columns(ENCODED[part], conversations[part], SOURCES[part]))
    return ExampleStore(path)


def test_examples_are_read_back_as_they_were_made(store: ExampleStore) -> None:
    expected = [
        make_example(encoded, conversation(row), source)
        for row, (encoded, source) in enumerate(zip(ENCODED, SOURCES, strict=True), start=1)
    ]
    assert list(store) == expected
    assert [store[i] for i in range(4)] == expected
    assert store[1:3] == expected[1:3]
    assert store[-1] == expected[-1]
    assert expected[2].labels == [-100, 2, -100, 4, 5]
    assert expected[2].weights == [0.0, 0.5, 0.0, 2.0, 2.0]
    assert expected[0].weights is None


def test_a_common_beginning_is_that_of_all_examples(tmp_path: Path, store: ExampleStore) -> None:
    """Over several batches, the last of which has the shortest one."""
    assert common_prefix_of(store) == 0
    rows = [[7, 8, 9, 1], [7, 8, 9, 2, 3], [7, 8, 9, 1], [7, 8, 5]]
    path = tmp_path / "alike.arrow"
    with store_writer(path) as write:
        for part in (slice(0, 2), slice(2, 4)):
            encoded = [Encoded(ids, ((0, 1, 1.0),)) for ids in rows[part]]
            write(example_columns(encoded, [conversation(1)] * 2, [0, 0]))
    alike = ExampleStore(path)
    assert common_prefix_of(alike) == 2
    assert common_prefix_of(alike[:2]) == 3
    assert common_prefix_of([]) == 0


def test_numbers_are_known_without_building_examples(store: ExampleStore) -> None:
    assert len(store) == 4
    assert store.lengths.tolist() == lengths_of(store).tolist() == [3, 2, 5, 1]
    # The first token of a text is never predicted.
    assert store.supervised.tolist() == [2, 1, 3, 0]
    assert store.sources.tolist() == SOURCES


def test_opening_a_store_reads_nothing_of_the_examples(tmp_path: Path, store: ExampleStore) -> None:
    path = tmp_path / "examples.arrow"
    # The footer stays, where Arrow finds the batches; all before it is lost.
    content = path.read_bytes()
    path.write_bytes(bytes(1024) + content[1024:])
    assert ExampleStore(path).lengths.tolist() == [3, 2, 5, 1]


@pytest.mark.parametrize("left", [0, 20, -4], ids=["nothing", "half a header", "all but a number"])
def test_store_that_is_cut_off_is_refused(tmp_path: Path, store: ExampleStore, left: int) -> None:
    numbers = tmp_path / "examples.npy"
    numbers.write_bytes(numbers.read_bytes()[:left])
    with pytest.raises(DAMAGED):
        ExampleStore(tmp_path / "examples.arrow")


def test_number_out_of_range_is_an_index_error(store: ExampleStore) -> None:
    with pytest.raises(IndexError):
        store[4]


def test_store_goes_to_another_process_by_its_path(store: ExampleStore) -> None:
    assert list(pickle.loads(pickle.dumps(store))) == list(store)


def test_store_without_examples_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "none.arrow"
    with store_writer(path):
        pass
    assert list(ExampleStore(path)) == []


def test_places_are_counted_as_the_reader_of_the_file_does(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path / "corpus.arrow")
    for number, (file, unit) in enumerate([("a.parquet", "row"), ("b.jsonl", "line"), ("a.parquet", "row")]):
        text = record_to_json(replace(conversation(number), unit=unit))
        writer.append(text, bytes(16), 0, (file, number + 1), None)
    expected = ["a.parquet row 1", "b.jsonl line 2", "a.parquet row 3"]
    assert [writer.place(number) for number in range(3)] == expected
    corpus = writer.close()
    assert [corpus.place(number) for number in range(3)] == expected


def test_corpus_gives_any_rows_in_the_order_asked(tmp_path: Path) -> None:
    writer = CorpusWriter(tmp_path / "corpus.arrow")
    for row in range(3000):
        text = record_to_json(conversation(row))
        file = "a.jsonl" if row < 1500 else "b.jsonl"
        writer.append(text, row.to_bytes(16, "big"), row % 3, (file, row), str(row))
    assert writer.place(1500) == "b.jsonl line 1500"
    corpus = writer.close()
    records = corpus.records(np.array([2999, 0, 1500]))
    assert [(record.source, record.row) for record in records] == [
        ("b.jsonl", 2999), ("a.jsonl", 0), ("b.jsonl", 1500),
    ]  # fmt: skip
    assert records[0].messages[1].content == "a2999 é"
    assert corpus.place(2999) == "b.jsonl line 2999"
    assert corpus.values()[7] == "7"
    assert corpus.keys()[7] == (7).to_bytes(16, "big")
    assert corpus.sources[:4].tolist() == [0, 1, 2, 0]
    assert len(pickle.loads(pickle.dumps(corpus))) == 3000
