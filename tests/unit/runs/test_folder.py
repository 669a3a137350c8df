import datetime
import os
from pathlib import Path

import pytest

from loralab.errors import ConfigError
from loralab.runs.folder import check_writable, create_run, find_run, new_run_id, read_json, write_json

NOON = datetime.datetime(2026, 1, 31, 12, 0, 5)


def test_run_id_starts_with_date_and_time() -> None:
    assert new_run_id("llama3_8b_r64", NOON) == "2026-01-31_12-00-05_llama3_8b_r64"
    assert new_run_id("my org/model r8", NOON, job=3) == "2026-01-31_12-00-05_my-org-model-r8_3"


def test_a_run_is_found_by_id_and_by_folder(tmp_path: Path) -> None:
    run = create_run(str(tmp_path), "train", "abc")
    run.config_path.write_text("")
    assert find_run(str(tmp_path), "abc", "run").path == run.path == tmp_path / "train" / "abc"
    assert find_run("elsewhere", str(run.path), "run").path == run.path


def test_an_unknown_run_names_the_closest_and_the_latest(tmp_path: Path) -> None:
    for run_id in ("2026-01-01_a", "2026-01-02_b"):
        create_run(str(tmp_path), "train", run_id).config_path.write_text("")
    with pytest.raises(ConfigError) as refused:
        find_run(str(tmp_path), "2026-01-01_c", "resume")
    assert str(refused.value) == (
        "resume=2026-01-01_c is not a run. Did you mean '2026-01-01_a' or '2026-01-02_b'? The latest is "
        f"'2026-01-02_b'; `loralab runs list --outputs {tmp_path}` shows all."
    )


def test_a_part_of_an_id_names_the_newest_runs_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^run=r8 is not a run\. There is none in outputs/train\.$"):
        find_run("outputs", "r8", "run")
    for day in range(1, 6):
        path = create_run("outputs", "train", f"2026-01-0{day}_model_r8").config_path
        path.write_text("")
        os.utime(path, (day, day))
    with pytest.raises(ConfigError) as refused:
        find_run("outputs", "r8", "run")
    assert str(refused.value) == (
        "run=r8 is not a run. Did you mean '2026-01-05_model_r8' or '2026-01-04_model_r8' or "
        "'2026-01-03_model_r8'? The latest is '2026-01-05_model_r8'; `loralab runs list` shows all."
    )


def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    create_run(str(tmp_path), "train", "abc").config_path.write_text("")
    with pytest.raises(ConfigError, match=r"exists already.*resume=/.*/train/abc"):
        create_run(str(tmp_path), "train", "abc")


def test_what_a_kill_at_the_very_beginning_leaves_does_not_take_the_name(tmp_path: Path) -> None:
    run = create_run(str(tmp_path), "train", "abc")
    run.manifest_path.write_text("{}")
    (run.path / ".config.yaml.tmp").write_text("")
    assert create_run(str(tmp_path), "train", "abc") == run
    (run.path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        create_run(str(tmp_path), "train", "abc")


def test_a_file_in_the_way_of_the_outputs_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run.outputs_dir=.*file.* cannot be written"):
        check_writable(str(tmp_path / "file"), "run.outputs_dir")


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": "é"})
    assert read_json(tmp_path / "a.json") == {"x": "é"}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "absent.json") == {}
