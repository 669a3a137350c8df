"""`loralab plan`: what a run takes and what fits, without any weights."""

import dataclasses
import json as json_library
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

TABLE_WIDTH = 100
"""Columns of the widest table."""
MOST_PROCESSES, MODELS_PER_PROCESS = 2, 8
"""Processes that share the models of --table, and the fewest models that are worth starting one more."""

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="What you would type after `python train.py`."),
]


def plan(
    words: Words = None,
    card: Annotated[
        list[float] | None,
        typer.Option(metavar="GIB", help="Size of a card (else trainer.memory_gib); give it again for more."),
    ] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of a micro-batch: trainer.batch_size.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a row: data.max_length.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Every model of conf/model by rank.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every figure.")] = None,
) -> None:
    """Says what memory a run takes, what fits on which card, and what would make it fit.

    Nothing is downloaded and no weights load: `loralab plan model=llama3_8b lora=r64 --card 24`.
    """
    from loralab.config.load import compose_train

    cards = check_cards(card or ())
    if json is not None and not json.parent.is_dir():
        raise ConfigError(
            f"--json {str(json)!r}: the folder {str(json.parent)!r} does not exist. Make it first."
        )
    config = compose_train([*(words or ()), *_size_words(words or (), rows, length)])
    check_plannable(config, words or (), table, rows)
    if not cards and config.trainer.memory_gib is not None:
        cards = [config.trainer.memory_gib]
    written = _plan_table(config, cards) if table else _plan_run(config, cards)
    if json is not None:
        json.write_text(json_library.dumps(written, indent=2) + "\n", encoding="utf-8")
        print(f"figures: {json}")


def check_cards(cards: Sequence[float]) -> list[float]:
    """Sorts sizes of cards.

    Raises:
        ConfigError: One is no size.
    """
    for card in cards:
        if not 0 < card < math.inf:
            raise ConfigError(f"--card {card:g} is no size of a card. Give GiB above 0, such as --card 24.")
    return sorted(set(cards))


def check_plannable(config: TrainConfig, words: Sequence[str], table: bool, rows: int | None) -> None:
    """Refuses what only a run with its data can answer, and options that contradict each other.

    A model of the Hub that replaces the one of a preset loses that preset's architecture.

    Raises:
        ConfigError: The words do not go together.
    """
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    if config.lora.auto:
        raise ConfigError(
            "lora=auto proposes a rank from the rows of a run. Give one here, such as lora=r16."
        )
    if table and (given := sorted(key for key in keys if key.split(".")[0] == "model")):
        raise ConfigError(f"--table compares every model of conf/model. Leave {given[0]}=... out.")
    if table and rows is not None:
        raise ConfigError("--table plans with one row in a micro-batch. Leave --rows out.")
    if "model.path" in keys and not any(key.startswith("model.architecture") for key in keys):
        config.model.architecture = {}


def presets() -> list[ModelConfig]:
    """Reads the models of `conf/model` that say what they are made of."""
    from loralab.config.folder import find_conf

    paths = sorted((find_conf() / "model").glob("*.yaml"))
    found = [ModelConfig(**yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths]
    return [preset for preset in found if preset.architecture]


def _console() -> "Console":
    """A console as wide as the tables where nothing else decides, as in a pipe."""
    from loralab.cli.tables import make_console

    console = make_console()
    if not console.is_terminal:
        console.width = max(console.width, TABLE_WIDTH)
    return console


def _size_words(words: Sequence[str], rows: int | None, length: int | None) -> list[str]:
    found = [] if rows is None else [f"trainer.batch_size={rows}"]
    return found if length is None else [*found, f"data.max_length={length}"]


def _plan_run(config: TrainConfig, cards: list[float]) -> dict[str, Any]:
    from loralab.cli.plan_tables import print_run
    from loralab.cli.planning import CARDS_GIB, plan_run
    from loralab.cli.tables import make_console
    from loralab.model.hardware import dtype_name
    from loralab.model.load import quiet_libraries

    quiet_libraries()
    with make_console(stderr=True).status("estimating ..."):
        planned = plan_run(config, cards or CARDS_GIB)
    print_run(_console(), planned)
    return {
        "model": {"name": config.model.name, "parameters": planned.bare.num_parameters},
        "device": planned.device_type,
        "reserved_bytes": planned.reserved_bytes,
        "request": {
            **dataclasses.asdict(planned.request),
            "dtype": dtype_name(planned.request.dtype),
        },
        "trainable": planned.estimate.num_trainable,
        "parts": planned.estimate.parts,
        "peak": planned.estimate.peak,
        "cards": [{**dataclasses.asdict(each), "fits": each.fits} for each in planned.cards],
        "ranks": [dataclasses.asdict(each) for each in planned.ranks],
    }


def _plan_table(config: TrainConfig, cards: list[float]) -> dict[str, Any]:
    from loralab.cli.model_plans import plan_models
    from loralab.cli.plan_tables import print_models
    from loralab.cli.planning import CARDS_GIB, plan_device, reserved
    from loralab.cli.tables import make_console
    from loralab.model.load import quiet_libraries

    quiet_libraries()
    sizes, device_type = cards or CARDS_GIB, plan_device(config)[0]
    reserved_bytes = reserved(device_type)
    models = presets()
    num_processes = max(1, min(MOST_PROCESSES, os.cpu_count() or 1, len(models) // MODELS_PER_PROCESS))
    with make_console(stderr=True).status("estimating every model ..."):
        planned = plan_models(config, models, num_processes)
    planned.sort(key=lambda each: each.num_parameters)
    print_models(_console(), config, planned, sizes, reserved_bytes)
    figures = [
        dataclasses.asdict(each)
        | {"cards": {r: each.smallest_card(r, sizes, reserved_bytes) for r in each.peaks}}
        for each in planned
    ]
    return {"device": device_type, "reserved_bytes": reserved_bytes, "models": figures}
