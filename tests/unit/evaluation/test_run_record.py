import json

import pytest

from loralab.errors import DataError
from loralab.evaluation.run_record import RunRecord, load_run


def test_empty_folder_gives_an_empty_record_named_after_the_folder(tmp_path):
    assert load_run(tmp_path) == RunRecord(tmp_path.name, metrics=[], samples=[], references=[], watched=[])


def test_run_id_comes_from_the_summary_then_the_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text('{"run_id": "from manifest"}')
    assert load_run(tmp_path).run_id == "from manifest"
    (tmp_path / "summary.json").write_text('{"run_id": "from summary"}')
    assert load_run(tmp_path).run_id == "from summary"


def test_files_are_read(tmp_path):
    (tmp_path / "config.yaml").write_text("lora: {r: 16}  # rank\n")
    (tmp_path / "overrides.yaml").write_text("- lora=r16\n")
    (tmp_path / "data.json").write_text('{"splits": {"train": {"rows": 3}}}')
    record = load_run(tmp_path)
    assert record.config == {"lora": {"r": 16}}
    assert record.config_text == "lora: {r: 16}  # rank\n"
    assert record.overrides == ["lora=r16"]
    assert record.splits == {"train": {"rows": 3}}


def test_half_written_line_is_skipped_and_counted(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n\n[2]\n{"step": 3}\n{"step": 4, "tra')
    record = load_run(tmp_path)
    assert record.metrics == [{"step": 1}, {"step": 3}]
    assert record.num_unreadable == 2


def test_line_separators_inside_a_text_do_not_split_the_row(tmp_path):
    row = {"tuned": "a\u2028b\x85c"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_run(tmp_path).samples == [row]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", '{"step": '),
        ("manifest.json", "nope"),
        ("data.json", "{"),
        ("config.yaml", "a: [1"),
        ("overrides.yaml", "- 'x"),
    ],
)
def test_broken_file_is_named_with_a_way_out(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name} is not valid .*Restore it"):
        load_run(tmp_path)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="gone does not exist"):
        load_run(tmp_path / "gone")
