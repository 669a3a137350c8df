"""How long prepared data is kept."""

import copy
import datetime
import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data import cache
from loralab.data.cache import cache_key, prune, touch

NOW = 1_500_000_000.0
HOUR, DAY = 3600, 86400
TODAY, TOMORROW = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)


def folder(root: Path, number: int, age_s: float, size: int = 10) -> Path:
    """Prepared data that was last used `age_s` seconds before `NOW`."""
    path = root / f"{number:032x}"
    path.mkdir(parents=True)
    (path / "train.arrow").write_bytes(bytes(size))
    for each in (path / "train.arrow", path):
        os.utime(each, (NOW - age_s, NOW - age_s))
    return path


def left(root: Path) -> list[int]:
    return sorted(int(path.name, 16) for path in root.iterdir())


def test_the_folders_that_were_not_used_for_longest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_FOLDERS", 3)
    ages = {1: 5 * DAY, 2: 2 * DAY, 3: 9 * DAY, 4: 3 * DAY, 5: 4 * DAY}
    paths = {number: folder(tmp_path, number, age) for number, age in ages.items()}
    prune(tmp_path, paths[2], NOW)
    assert left(tmp_path) == [2, 4, 5]


def test_what_is_asked_for_now_stays_however_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FOLDERS", 1)
    monkeypatch.setattr(cache, "MAX_BYTES", 0)
    oldest = folder(tmp_path, 1, 9 * DAY)
    folder(tmp_path, 2, 2 * DAY)
    prune(tmp_path, oldest, NOW)
    assert left(tmp_path) == [1]


def test_the_number_of_folders_spares_those_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FOLDERS", 1)
    paths = [folder(tmp_path, number, number * HOUR) for number in range(1, 6)]
    prune(tmp_path, paths[0], NOW)
    assert left(tmp_path) == [1, 2, 3, 4, 5]


def test_the_bytes_spare_those_of_this_hour_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 25)
    used = folder(tmp_path, 1, 0)
    for number, age in ((2, 0.5 * HOUR), (3, 2 * HOUR), (4, 3 * HOUR)):
        folder(tmp_path, number, age)
    prune(tmp_path, used, NOW)
    # 40 bytes are two folders too many for 25; the two of this hour hold 20.
    assert left(tmp_path) == [1, 2]


def test_within_the_limits_nothing_goes(tmp_path: Path) -> None:
    paths = [folder(tmp_path, number, 99 * DAY) for number in range(20)]
    prune(tmp_path, paths[0], NOW)
    assert len(left(tmp_path)) == 20


def test_unfinished_folders_go_after_a_day_and_other_things_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_FOLDERS", 0)
    used = folder(tmp_path, 1, 0)
    for name, age in ((".building-a", 2 * DAY), (".building-b", HOUR), ("my notes", 99 * DAY)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (NOW - age, NOW - age))
    prune(tmp_path, used, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".building-b", "my notes", used.name])


def test_a_touch_makes_a_folder_young(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_FOLDERS", 1)
    old, other = folder(tmp_path, 1, 30 * DAY), folder(tmp_path, 2, 20 * DAY)
    touch(old)
    prune(tmp_path, tmp_path / "none", os.stat(old).st_mtime + 2 * DAY)
    assert old.is_dir()
    assert not other.exists()


def test_no_cache_is_no_fault(tmp_path: Path) -> None:
    touch(tmp_path / "none")
    prune(tmp_path / "none", tmp_path / "none", NOW)
    assert not (tmp_path / "none").exists()


def key(tokenizer: PreTrainedTokenizerBase, today: datetime.date = TODAY) -> str:
    return cache_key(DataConfig(), tokenizer, [], 0, today)


@pytest.mark.parametrize("package", ["transformers", "tokenizers", "py3langid"])
def test_another_version_of_a_library_is_another_key(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    before = key(tokenizer)
    assert key(tokenizer) == before
    installed = cache.version
    monkeypatch.setattr(cache, "version", lambda name: "99.9" if name == package else installed(name))
    assert key(tokenizer) != before


def test_the_day_counts_only_where_the_template_writes_it(tokenizer: PreTrainedTokenizerBase) -> None:
    assert key(tokenizer, TODAY) == key(tokenizer, TOMORROW)
    dated = copy.deepcopy(tokenizer)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}" + str(tokenizer.chat_template)
    assert key(dated, TODAY) != key(dated, TOMORROW)
    assert key(dated, TODAY) == key(dated, TODAY)
