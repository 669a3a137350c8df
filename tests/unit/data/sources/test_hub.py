"""Streaming a dataset of the Hub, with the Hub played by a file on disk."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from loralab.data.sources import Row, hub_revision, read_hub
from loralab.errors import DataError

COMMIT = "0123456789abcdef"
LOAD_DATASET = datasets.load_dataset


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Plays a Hub with one dataset of two rows; returns what was asked of it last."""
    file, asked = tmp_path / "rows.jsonl", dict[str, Any]()
    file.write_text("".join(json.dumps(row) + "\n" for row in ({"a": [{"b": "x"}]}, {"a": None})))

    def find(self: object, name: str, revision: str | None) -> SimpleNamespace:
        asked.update(name=name, revision=revision)
        return SimpleNamespace(sha=COMMIT)

    def load(name: str, subset: str | None, **settings: Any) -> Any:
        asked.update(name=name, subset=subset, **settings)
        return LOAD_DATASET(
            "json", data_files={"train": str(file)}, split=settings["split"], streaming=True,
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", find)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_rows_are_streamed_from_the_commit_of_the_revision(hub: dict[str, Any]) -> None:
    rows = list(read_hub("owner/name", "main", "train", "v1", "data.path"))
    assert rows == [Row(1, {"a": [{"b": "x"}]}, "row"), Row(2, {"a": None}, "row")]
    assert hub == {
        "name": "owner/name", "subset": "main", "split": "train", "revision": COMMIT, "streaming": True,
    }  # fmt: skip


def test_revision_is_resolved_to_its_commit(hub: dict[str, Any]) -> None:
    assert hub_revision("owner/name", "v1") == COMMIT
    assert hub == {"name": "owner/name", "revision": "v1"}


def test_unknown_split_names_the_known_ones(hub: dict[str, Any]) -> None:
    with pytest.raises(DataError) as error:
        list(read_hub("owner/name", None, "trian", None, "data.sources[0].path"))
    assert str(error.value) == (
        "data.sources[0].path='hub:owner/name' cannot be read: Bad split: trian. Available splits: ['train']."
    )


def test_split_without_rows_is_refused(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter(()))
    with pytest.raises(DataError, match="has no rows in the split 'train'; at least one is needed"):
        list(read_hub("owner/name", None, "train", None, "data.path"))


def test_rows_before_a_lost_connection_are_kept(hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*_: object, **__: object) -> Any:
        yield {"a": 1}
        raise ConnectionError("reset by peer\nand more")

    monkeypatch.setattr(datasets, "load_dataset", rows)
    found = read_hub("owner/name", None, "train", None, "data.path")
    assert next(found) == Row(1, {"a": 1}, "row")
    with pytest.raises(DataError) as error:
        next(found)
    assert "cannot be reached: reset by peer and more. Check the network and HF_HUB_OFFLINE" in str(
        error.value
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (RepositoryNotFoundError, "is no dataset of the Hub, or a private one; check the name"),
        (GatedRepoError, "is gated: ask for access on its page, then log in with `hf auth login`."),
        (RevisionNotFoundError, "has no such revision; give a branch, tag or commit of it, or null."),
        (HfHubHTTPError, "cannot be read: the answer."),
        (ImportError, "needs a package that is missing: the answer. Install it with pip."),
        (TimeoutError, "cannot be reached: the answer."),
    ],
)
def test_refusal_of_the_hub_is_explained(
    kind: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, name: str, revision: str | None) -> None:
        if issubclass(kind, HfHubHTTPError):
            raise kind("the answer", response=SimpleNamespace(headers={}, request=None))
        raise kind("the answer")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    for ask in (lambda: hub_revision("a/b", None), lambda: next(read_hub("a/b", None, "train", None))):
        with pytest.raises(DataError) as error:
            ask()
        assert str(error.value).startswith(f"data.path='hub:a/b' {says}")


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "/etc/passwd", "../x/y"])
def test_name_that_is_no_dataset_is_refused_before_asking(name: str) -> None:
    with pytest.raises(DataError, match=r"names no dataset\. Allowed: hub:owner/name\."):
        hub_revision(name, None)


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_unreachable_hub_is_explained_without_a_traceback(setting: dict[str, str], tmp_path: Path) -> None:
    program = (
        "from loralab.data.sources import read_hub\n"
        "from loralab.errors import DataError\n"
        "try:\n"
        "    next(read_hub('owner/name', None, 'train', None, 'data.path'))\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HOME": str(tmp_path), **setting},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    assert result.stdout.startswith("data.path='hub:owner/name' cannot be reached: ")
    assert result.stdout.endswith("or give a downloaded copy of its files as path.\n")
    assert result.stdout.count("\n") == 1
