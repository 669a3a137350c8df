"""What a run writes down at its end: what its adapter learned, and its memory against the estimate."""

from collections.abc import Sequence
from dataclasses import asdict

import torch

from loralab import metrics
from loralab.callbacks.memory import FIRST_STEP, STEADY, stage_figures, stage_peaks
from loralab.callbacks.recorder import Recorder
from loralab.config.model import LoraConfig
from loralab.evaluation.adapter_report import LayerUpdate, gradient_scales, measure_adapter
from loralab.runs.folder import write_json
from loralab.runs.memory import GIB
from loralab.training.record import update_summary
from loralab.training.session import Session

SECOND_MOMENT = "exp_avg_sq"


def record_adapter(session: Session) -> None:
    """Measures every update of the saved adapter, writes `adapter.json`, and says the essence in a line."""
    config = session.plan.config
    updates = measure_adapter(session.run.adapter_dir, config.lora.r, _gradient_rms(session))
    write_json(session.run.path / "adapter.json", {"layers": [asdict(update) for update in updates]})
    session.console.print(describe_updates(updates, config.lora), soft_wrap=True)


def describe_updates(updates: Sequence[LayerUpdate], lora: LoraConfig) -> str:
    """Says in a line how much of its rank an adapter uses."""
    if not updates:
        return f"adapter: no low-rank update to measure for lora.method={lora.method}"
    used = [update.effective_rank for update in updates]
    ranks = sorted({update.highest_rank for update in updates})
    spread = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    doubled = f" (2 r: {lora.init} counts from a first update)" if updates[0].doubled else ""
    return (
        f"adapter: effective rank {min(used):.1f} to {max(used):.1f} of {spread}{doubled}; each layer's and "
        "a rank pattern in the report"
    )


def record_memory(session: Session) -> None:
    """Marks the comparison, writes `memory.json`, and prints the estimate of a step against what it took."""
    meter, parts = session.meter, session.plan.estimate.of_step
    reading = meter.mark("comparison")
    Recorder.write(session.trainer, session.module.finished_steps, stage_figures(reading))
    stages = stage_peaks(meter.readings)
    measured = max((stages[name].peak_gib for name in (FIRST_STEP, STEADY) if name in stages), default=None)
    write_json(
        session.run.path / "memory.json",
        {
            "estimate": parts,
            "measured_peak_gib": measured,
            "stages": [asdict(stage) for stage in stages.values()],
        },
    )
    update_summary(session.run, {metrics.MEMORY_PEAK_GIB: round(meter.peak_gib, 3)})
    if measured is not None:
        estimated = sum(parts.values()) / GIB
        session.console.print(
            f"memory: a step of the longest rows was estimated at {estimated:.2f} GiB "
            f"({estimated / measured - 1:+.0%}); the steps taken reached {measured:.2f} GiB",
            soft_wrap=True,
        )


def _gradient_rms(session: Session) -> dict[str, float] | None:
    """The gradient scale of each layer, where the optimizer keeps second moments and has taken a step."""
    optimizers = session.trainer.optimizers
    state = optimizers[0].state if optimizers else {}
    masters: dict[str, torch.nn.Parameter] = session.module.masters.masters
    moments = {
        name: state[master][SECOND_MOMENT]
        for name, master in masters.items()
        if SECOND_MOMENT in state.get(master, {})
    }
    if not moments:
        return None
    return gradient_scales(moments, session.plan.config.optim.betas[1], session.module.finished_steps)
