"""`loralab resume-proof`: shows that a stopped and continued run equals one that never stopped."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from loralab.errors import ConfigError

SHOWN_DIFFERENCES = 3
EXIT_DIFFERENT = 1
QUICK = {"callbacks": "quiet", "eval": "none"}
"""Choices of groups unless the user makes another one."""

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="What you would type after `python train.py`."),
]


def resume_proof(
    words: Words = None,
    steps: Annotated[int, typer.Option(min=1, help="N: steps before and after the stop.")] = 4,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="FOLDER", help="Where the runs go.")
    ] = None,
) -> None:
    """Trains 2N steps, and N + resume + N, and compares weights, optimizer and every logged number.

    Each part runs in a process of its own. On a CPU all are the same bit for bit; on a GPU some kernels are
    not deterministic. Exits with 0 where nothing differs, else with 1. The default is the embedded model.
    """
    from loralab.cli.tables import cells, make_console, make_table, say
    from loralab.config.load import compose_train
    from loralab.training.proof import prove_resume

    chosen = {word.partition("=")[0] for word in words or ()}
    quick = [f"{group}={choice}" for group, choice in QUICK.items() if group not in chosen]
    config = compose_train([*quick, *(words or ())])
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    place = folder or Path(config.run.outputs_dir) / "resume_proof" / stamp
    if place.exists() and any(place.iterdir()):
        raise ConfigError(f"--folder {place} is not empty. Choose another.")
    verdicts = prove_resume(config, steps, place)
    console = make_console()
    table = make_table("part", ">values", "verdict")
    for each in verdicts:
        places = [*each.differences[:SHOWN_DIFFERENCES]]
        if len(each.differences) > SHOWN_DIFFERENCES:
            places.append(f"and {len(each.differences) - SHOWN_DIFFERENCES} more")
        table.add_row(*cells(each.part, f"{each.num_values:,}", "; ".join(places) or "same bit for bit"))
    say(console, f"{2 * steps} steps against {steps} + resume + {steps}, in {place}")
    console.print(table)
    if any(each.differences for each in verdicts):
        raise typer.Exit(EXIT_DIFFERENT)
