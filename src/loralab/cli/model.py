"""`loralab model`: look at a base model before a run."""

from pathlib import Path
from typing import Annotated

import typer

from loralab.errors import ConfigError

app = typer.Typer(help="Look at a base model.", no_args_is_help=True)

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="model=FOLDER, a Hub name, or embedded; options of the groups model and quant, such as "
        "quant.double_quant=false; trainer.accelerator and trainer.precision; and how --data is read, as for "
        "`loralab data`: columns.prompt=question max_length=512.",
    ),
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def quant_report(
    words: Words = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Rows to measure perplexity on."),
    ] = None,
    schemes: Annotated[str, typer.Option(help="What to compare.")] = "nf4,fp4,int8,none",
    max_examples: Annotated[int | None, typer.Option(min=1, help="Rows from the front of --data.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="One line for each layer.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every figure.")] = None,
) -> None:
    """Compares quantization schemes on a model: bytes, error of the weights, and perplexity.

    Errors are ||W - Q(W)|| / ||W|| against the checkpoint. With --data full precision is measured too.
    """
    from loralab.cli.quant_report import run_quant_report
    from loralab.cli.quant_request import make_quant_request

    if max_examples is not None and data is None:
        raise ConfigError("--max-examples counts rows of --data. Give --data PATH too.")
    if json is not None and not json.parent.is_dir():
        raise ConfigError(
            f"--json {str(json)!r}: the folder {str(json.parent)!r} does not exist. Make it first."
        )
    limit = [] if max_examples is None else [f"max_examples={max_examples}"]
    run_quant_report(make_quant_request([*(words or []), *limit], data, schemes), layers, json)
