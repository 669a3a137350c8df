"""What `loralab plan --table` works out: the memory of every model by rank."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

from loralab.cli.planning import bare_model, make_request, plan_device
from loralab.config.model import ModelConfig
from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError, LoralabError
from loralab.model.load import quiet_libraries
from loralab.model.memory_advice import resized
from loralab.model.memory_map import RANKED_METHODS, RANKS, MemoryMap
from loralab.runs.memory import GIB
from loralab.training.memory_plan import HEADROOM


@dataclass(frozen=True)
class ModelPlan:
    """A model at every rank, with one row in a micro-batch and gradient checkpointing."""

    name: str
    """Of the preset."""
    num_parameters: int
    """Parameters of the base."""
    peaks: dict[int, int]
    """Bytes by rank; empty where `fault` says why."""
    fault: str = ""
    """Why the model cannot run so."""

    def smallest_card(self, rank: int, cards: Sequence[float], reserved_bytes: int) -> float | None:
        """Returns the first of some cards, ascending, that the run fills to no more than `HEADROOM`."""
        limits = ((card, HEADROOM * (card * GIB - reserved_bytes)) for card in cards)
        return next((card for card, limit in limits if self.peaks[rank] <= limit), None)


def plan_models(config: TrainConfig, presets: Sequence[ModelConfig], num_processes: int) -> list[ModelPlan]:
    """Works out what each model takes at each of `RANKS`, with one row and gradient checkpointing.

    Args:
        config: Everything else of the runs.
        presets: The models.
        num_processes: How many to work out at once.

    Raises:
        ConfigError: The adapter has no rank.
    """
    if config.lora.method not in RANKED_METHODS:
        raise ConfigError(f"--table compares ranks, and lora.method={config.lora.method} has none.")
    lora = replace(config.lora, r=RANKS[0], alpha=None, initial_rank=None)
    runs = [replace(config, model=preset, lora=lora) for preset in presets]
    if num_processes == 1:
        return list(map(plan_model, runs))
    # Forked processes would inherit locks of PyTorch's threads.
    spawning = get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=spawning, initializer=quiet_libraries) as pool:
        return list(pool.map(plan_model, runs))


def plan_model(config: TrainConfig) -> ModelPlan:
    """Works out what a run takes at each of `RANKS`, with one row and gradient checkpointing.

    Args:
        config: The run, with the lowest of the ranks.
    """
    device_type, dtype = plan_device(config)
    try:
        bare = bare_model(config, device_type, dtype)
    except LoralabError as error:
        return ModelPlan(config.model.name, 0, {}, str(error))
    whole = make_request(config, bare.quant, dtype)
    one_row = replace(
        resized(whole, 1, whole.width), checkpointing=True, accumulation=whole.rows * whole.accumulation
    )
    memory = MemoryMap(bare.model, one_row, device_type)
    accumulates = one_row.accumulation > 1
    peaks = {rank: memory.at(rank, 1, True).estimate(accumulates).peak for rank in memory.ranks}
    return ModelPlan(config.model.name, bare.num_parameters, peaks)
