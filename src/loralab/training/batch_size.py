"""`trainer.batch_size=auto`: the largest micro-batch that fits in memory, estimated and then tried."""

import gc
import math

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device

from loralab.data.collate import MicroBatch, pack_examples, pad_examples
from loralab.data.cutting import MicroBatchSize
from loralab.data.layout import Layout
from loralab.errors import ConfigError
from loralab.model.memory_request import OPTIMIZER
from loralab.modules.base import AdapterModule
from loralab.runs.generators import random_state, restore_random_state
from loralab.runs.memory import GIB, MemoryMeter
from loralab.training.memory_plan import HEADROOM, MemoryPlan, padded, rows_per_process


def estimate_size(planner: MemoryPlan, layout: Layout) -> MicroBatchSize:
    """Finds the most rows as wide as the widest that are estimated to fit, and their tokens; at least one."""
    width = layout.pack_length or padded(layout.lengths[layout.mixture].max())
    limit = HEADROOM * planner.available_bytes

    def fits(rows: int) -> bool:
        return planner.estimate(planner.request(MicroBatchSize(tokens=rows * width), layout)).peak <= limit

    low, high = 0, rows_per_process(planner.config, layout)
    if fits(high):
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # Where not even one row fits, the check of the run's memory refuses it with advice.
    return MicroBatchSize(tokens=max(1, low) * width)


def try_size(
    size: MicroBatchSize, module: AdapterModule, planner: MemoryPlan, layout: Layout, meter: MemoryMeter
) -> MicroBatchSize:
    """Runs forward and backward on the micro-batch that takes the most, and lowers the size until it fits.

    Nothing of it stays: gradients are dropped and the random generators put back. Where the system cannot
    start a peak anew, no trial says anything about the next, and the estimate stands untried.

    Raises:
        ConfigError: Not even one row fits.
    """
    if not meter.can_reset:
        return size
    width, limit = layout.pack_length or padded(layout.lengths[layout.mixture].max()), planner.available_bytes
    optimizer = planner.estimate(planner.request(size, layout)).parts[OPTIMIZER]
    assert size.tokens is not None
    rows = size.tokens // width
    while True:
        peak = _try_step(module, _widest(layout, planner, rows), planner.device, meter)
        needed = math.inf if peak is None else peak + optimizer
        if needed <= HEADROOM * limit:
            return MicroBatchSize(tokens=rows * width)
        if rows == 1:
            raise ConfigError(_refusal(planner, width, needed))
        # Where memory ran out nobody knows how much was missing.
        rows = rows // 2 if peak is None else max(1, min(rows - 1, int(rows * HEADROOM * limit / needed)))


def _refusal(planner: MemoryPlan, width: int, needed: float) -> str:
    """Says that one row does not fit, and what there is to change."""
    config, remedies = planner.config, planner.remedies
    ways = ["a smaller data.max_length"]
    if remedies.checkpointing and int(config.trainer.gradient_checkpointing) != 1:
        ways.insert(0, "trainer.gradient_checkpointing=true")
    if remedies.four_bits and planner.quant.name in ("none", "int8"):
        ways.append("quant=nf4")
    limit_gib = planner.available_bytes / GIB
    taken = "more than" if math.isinf(needed) else f"{needed / GIB:.1f} of"
    return (
        f"trainer.batch_size=auto: one row of {width:,} tokens takes {taken} {limit_gib:.1f} GiB, of which a "
        f"step may fill {HEADROOM:.0%}. Use {' or '.join(ways)}."
    )


def _widest(layout: Layout, planner: MemoryPlan, rows: int) -> MicroBatch:
    """Builds the micro-batch of the widest rows."""
    examples, pad_id = planner.data.train.examples, planner.pad_id
    if layout.pack_length is not None:
        chosen = [layout.unit(0, number) for number in range(min(rows, layout.num_units))]
        packed = [[examples[int(number)] for number in row] for row in chosen]
        # Other rows may have no beginning in common.
        return pack_examples(packed, layout.pack_length, pad_id)._replace(shared_prefix=0)
    longest_first = layout.mixture[np.argsort(-layout.lengths[layout.mixture], kind="stable")]
    batch = pad_examples([examples[int(number)] for number in longest_first[:rows]], pad_id)
    # With their padding: as many tokens may come without any, in shorter rows.
    return batch._replace(lengths=(batch.input_ids.shape[1],) * len(batch.input_ids), shared_prefix=0)


def _try_step(
    module: AdapterModule, batch: MicroBatch, device: torch.device, meter: MemoryMeter
) -> float | None:
    """Returns the peak of a forward and backward pass in bytes; None where it ran out of memory."""
    generators = random_state(device)
    module.train()
    try:
        module.batch_losses(move_data_to_device(batch, device)).weighted().sum().backward()
        return meter.mark("trial").peak_gib * GIB
    except torch.OutOfMemoryError:
        return None
    finally:
        for parameter in module.parameters():
            parameter.grad = None
        for master in module.masters.parameters():
            master.grad = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        restore_random_state(generators, device)
