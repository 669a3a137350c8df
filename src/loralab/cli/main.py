"""The entry point of the console command, and how it ends when something is wrong."""

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from loralab.cli.data import app as data_app
from loralab.cli.model import app as model_app
from loralab.cli.plan import plan
from loralab.cli.proof import resume_proof
from loralab.cli.runs import app as runs_app
from loralab.errors import EXIT_INTERRUPTED, EXIT_USER, LoralabError, heard
from loralab.runs.allocator import preload


class _Commands(TyperGroup):
    """Turns errors that a user can mend into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the chosen command."""
        try:
            return super().invoke(ctx)
        except LoralabError as error:
            _fail(f"error: {error}", EXIT_USER)
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"error: {where}{error.strerror or error}", EXIT_USER)
        except KeyboardInterrupt:
            _fail("interrupted", EXIT_INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    help="Tools around fine-tuning; a run itself is `python train.py`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(runs_app, name="runs")
app.command()(plan)
app.command()(resume_proof)


def main() -> None:
    """Runs the command with the words of the command line."""
    preload()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal of another encoding shows a question mark for what it cannot.
            stream.reconfigure(errors="replace")
    try:
        with heard():
            app(prog_name="loralab")
    except OSError as error:
        # The interpreter must not find out once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: the output cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(EXIT_USER)


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    raise typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"loralab {version('loralab')}")
        raise typer.Exit()


@app.callback()
def _top_level(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
