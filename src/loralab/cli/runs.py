"""`loralab runs`: what is in the outputs folder, and whether a run folder is whole."""

from pathlib import Path
from typing import Annotated

import typer

from loralab.errors import ConfigError

app = typer.Typer(help="Look at the runs of the outputs folder.", no_args_is_help=True)

Outputs = Annotated[
    Path, typer.Option("--outputs", metavar="FOLDER", help="The folder of runs: run.outputs_dir.")
]
Reference = Annotated[str, typer.Argument(metavar="RUN", help="Run id or folder.")]


@app.command("list")
def list_all(outputs: Outputs = Path("outputs")) -> None:
    """Lists the training runs, the newest first."""
    from loralab.cli.tables import cells, make_console, make_table, say
    from loralab.runs.overview import list_runs

    if not outputs.is_dir():
        raise ConfigError(f"--outputs {outputs}: there is no such folder. Train a run, or name another.")
    console, runs = make_console(), list_runs(outputs)
    if not runs:
        say(console, f"no run in {outputs / 'train'}")
        return
    table = make_table("run", "status", ">step", ">val loss", "began")
    for each in runs:
        loss = "-" if each.val_loss is None else f"{each.val_loss:.4f}"
        began = each.began.strftime("%Y-%m-%d %H:%M")
        table.add_row(*cells(each.run.run_id, each.status, f"{each.step:,}", loss, began))
    if not console.is_terminal:
        console.width = max(console.width, 60 + max(len(each.run.run_id) for each in runs))
    console.print(table)


@app.command()
def show(run: Reference, outputs: Outputs = Path("outputs")) -> None:
    """Shows the summary of a run, its checkpoints and what its config was changed to when it was resumed."""
    from loralab.cli.tables import make_console, say
    from loralab.runs.folder import find_run, read_json
    from loralab.runs.overview import describe
    from loralab.runs.series import saved_steps

    console, found = make_console(), find_run(str(outputs), run, "RUN")
    overview, summary = describe(found), read_json(found.summary_path)
    say(console, str(found.path), "bold")
    kept = ", ".join(f"step-{step}" for step in saved_steps(found.checkpoints_dir)) or "none"
    rows = {**summary, "status": overview.status, "step": overview.step, "checkpoints": kept}
    width = max(map(len, rows))
    for name, value in rows.items():
        say(console, f"{name:<{width}}  {f'{value:.6g}' if isinstance(value, float) else value}")
    for entry in read_json(found.manifest_path).get("resumed", []):
        say(console, f"from step {entry['step']} on  {'; '.join(entry['changes'])}")


@app.command()
def verify(run: Reference, outputs: Outputs = Path("outputs")) -> None:
    """Checks a run folder: files, metrics, checksums, the adapter against the best checkpoint, data files.

    Exits with 0 where all is well, and with 2 and the list of faults where something is not.
    """
    from loralab.cli.tables import make_console, plural, say
    from loralab.runs.folder import find_run
    from loralab.runs.series import saved_steps
    from loralab.runs.verify import verify_run

    found = find_run(str(outputs), run, "RUN")
    faults = verify_run(found)
    if faults:
        raise ConfigError("\n  ".join([f"{found.path} has {plural(len(faults), 'fault')}:", *faults]))
    count = plural(len(saved_steps(found.checkpoints_dir)), "checkpoint")
    adapter = "adapter" if (found.adapter_dir / "adapter_model.safetensors").is_file() else "no adapter yet"
    say(make_console(), f"{found.path} is whole: files, metrics, {count}, {adapter}, data")
