"""Generate the embedded data set: a request in plain English and the JSON call that answers it.

A row is a conversation of three messages (system, user, assistant). The answer has one fixed set of keys
per call (`CALLS`), and its values are copied from the request; only unit names are mapped, to symbols.

The three splits share the schema and nothing else:

- Request templates differ between splits. With each slot blanked out to one word, no four successive words
  of a test template and no five of a validation template are in any train template.
- Names of people, artists and songs, event titles, tasks, timer labels, message texts and list items of one
  split are in no other split.
- Every integer belongs to one split: days, hours, minutes, durations, quantities, levels and amounts of one
  split are in no request of another.
- Shared, because they are the schema: the call names and keys, the system prompt, the twelve unit names and
  symbols, the month names, and the rooms, devices and lists of `slots.CLOSED_VALUES`.

The train split asks for every call in 50 phrasings, two rows each, with the slots in varied order, and uses
no free text twice; only the names of people occur in two calls. About half of its names and texts hold an
invented word, and some requests stand between remarks (`augmentation`); the other splits have neither.

Conventions that the train rows show: a slot value never starts with an article, never ends with a full stop
and never includes quotation marks; `to` or `that` before a task or a message is not part of it.

Run `python -m loralab.data.calls.generate` to write the JSONL files again; the result is the same bytes.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loralab.data.calls import slots
from loralab.data.calls.augmentation import add_remarks, vary_filling
from loralab.data.calls.heldout_templates import TEST_TEMPLATES, VALIDATION_TEMPLATES
from loralab.data.calls.train_templates import TRAIN_TEMPLATES

SPLITS: dict[str, int] = {"train": 800, "validation": 100, "test": 200}
"""Split name to number of rows."""

CALLS: dict[str, tuple[str, ...]] = {
    "create_event": ("title", "person", "date", "time"),
    "set_reminder": ("text", "date", "time"),
    "set_timer": ("minutes", "label"),
    "convert_units": ("value", "from", "to"),
    "set_level": ("device", "room", "level"),
    "send_message": ("to", "text"),
    "play_music": ("title", "artist"),
    "add_to_list": ("item", "quantity", "list"),
}
"""Call name to the keys that follow `call` in its answer, in order."""

SYSTEM_PROMPT = "Reply with one JSON call."
"""Content of the system message of every row."""

_TEMPLATES = {"train": TRAIN_TEMPLATES, "validation": VALIDATION_TEMPLATES, "test": TEST_TEMPLATES}
_NUMBER_RANGES = {"minutes": (2, 90), "value": (2, 999), "level": (2, 99), "quantity": (2, 48)}
_OPEN_KINDS = {
    ("create_event", "title"): "event",
    ("create_event", "person"): "person",
    ("set_reminder", "text"): "task",
    ("set_timer", "label"): "label",
    ("send_message", "to"): "person",
    ("send_message", "text"): "message",
    ("play_music", "title"): "song",
    ("play_music", "artist"): "artist",
    ("add_to_list", "item"): "item",
}
_SEED = 20270314

Value = str | int
T = TypeVar("T")


def _deal(values: Sequence[T], rng: random.Random) -> Iterator[T]:
    """Yield values forever in shuffled rounds, so that all of them are used about equally often."""
    while True:
        yield from rng.sample(values, len(values))


def _slot_values(call: str, key: str, split: str) -> Sequence[Value]:
    """All values that a slot can take in a split."""
    if key in _NUMBER_RANGES:
        return slots.numbers(*_NUMBER_RANGES[key], split=split, seed=_SEED)
    if key in slots.CLOSED_VALUES:
        return slots.CLOSED_VALUES[key]
    if key == "date":
        return slots.dates(split, _SEED)
    if key == "time":
        return slots.times(split, _SEED)
    return slots.open_values(_OPEN_KINDS[call, key], split)


def _unit_pairs() -> list[tuple[str, str]]:
    """Every ordered pair of different units of one dimension."""
    return [(a, b) for group in slots.UNIT_GROUPS for a in group for b in group if a != b]


def _fillings(call: str, split: str, rng: random.Random) -> Iterator[dict[str, Value]]:
    """Yield slot values of a call forever, as they read in the request."""
    if call == "convert_units":
        pairs = _deal(_unit_pairs(), rng)
        for value in _deal(_slot_values(call, "value", split), rng):
            source, target = next(pairs)
            yield {"value": value, "from": source, "to": target}
    keys = CALLS[call]
    for values in zip(*(_deal(_slot_values(call, key, split), rng) for key in keys), strict=True):
        yield dict(zip(keys, values, strict=True))


def _answer(call: str, filling: dict[str, Value]) -> str:
    """JSON of the call, with unit names replaced by their symbols."""
    values: dict[str, Value] = dict(filling)
    if call == "convert_units":
        values = {key: slots.UNIT_SYMBOLS.get(str(value), value) for key, value in filling.items()}
    return json.dumps({"call": call, **values}, ensure_ascii=False)


def _call_pairs(call: str, split: str, num_rows: int) -> list[tuple[str, str]]:
    """Distinct pairs of request and answer of one call."""
    rng = random.Random(f"{_SEED} {split} {call}")
    fillings = _fillings(call, split, rng)
    pairs: dict[str, str] = {}
    for template in _deal(_TEMPLATES[split][call], rng):
        if len(pairs) == num_rows:
            break
        filling = next(fillings)
        if split == "train":
            kinds = {key: kind for (owner, key), kind in _OPEN_KINDS.items() if owner == call}
            filling = vary_filling(filling, kinds, rng)
        request = template.format_map(filling)
        pairs.setdefault(add_remarks(request, rng) if split == "train" else request, _answer(call, filling))
    return list(pairs.items())


def generate_split(split: str) -> list[dict[str, Any]]:
    """Rows of a split in a fixed shuffled order, the calls in equal shares as far as the count divides.

    Args:
        split: `train`, `validation` or `test`.

    Returns:
        Rows of the form `{"messages": [{"role": ..., "content": ...}, ...]}`.
    """
    share, remainder = divmod(SPLITS[split], len(CALLS))
    pairs: list[tuple[str, str]] = []
    for index, call in enumerate(CALLS):
        pairs += _call_pairs(call, split, share + (index < remainder))
    random.Random(f"{_SEED} {split}").shuffle(pairs)
    return [
        {
            "messages": [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": request},
                {"role": "assistant", "content": answer},
            ]
        }
        for request, answer in pairs
    ]


def write_splits(folder: Path) -> None:
    """Write one JSONL file per split into an existing folder."""
    for split in SPLITS:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate_split(split))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write_splits(Path(__file__).parent)
