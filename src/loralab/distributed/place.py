"""Which of several processes this one is, as torchrun, SLURM or loralab itself has started it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loralab.errors import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun gives each process."""
FIRST_PORT = 15_000
"""Of the ports that jobs of SLURM meet at."""
NUM_PORTS, STEP_PORTS = 10_000, 1000
"""How many there are, and how far apart those of two steps of a job are."""


@dataclass(frozen=True)
class Place:
    """The place of a process among those of its run."""

    rank: int = 0
    """Among all, from 0."""
    world_size: int = 1
    """All of them."""
    local_rank: int = 0
    """Among those of this machine, from 0; the number of its GPU."""
    local_world_size: int = 1
    """Those of each machine."""
    address: str = "127.0.0.1"
    """Where the first one listens."""
    port: int = 0

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.world_size // self.local_world_size

    def to_environment(self) -> dict[str, str]:
        """Returns what a process is told as torchrun tells it."""
        values = (
            self.rank, self.world_size, self.local_rank, self.local_world_size, self.address, self.port
        )  # fmt: skip
        return dict(zip(TORCHRUN, map(str, values), strict=True))


def place_of(environment: Mapping[str, str]) -> Place:
    """Reads the place of this process from the environment; that of a single one where nothing is said.

    Raises:
        ConfigError: What is said contradicts itself.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    # Of a step that srun started: a command in the script of a job alone is a single process.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return _of_slurm(environment)
    return Place()


def check_own_gpus(gpus: Sequence[str]) -> None:
    """Refuses processes that compute on the same GPU.

    Args:
        gpus: The name of the GPU of each process.

    Raises:
        ConfigError: Two are the same.
    """
    for number, gpu in enumerate(gpus):
        if (first := gpus.index(gpu)) != number:
            raise ConfigError(
                f"processes {first} and {number} share a GPU ({gpu}): give each its own. Start as many as "
                "there are GPUs (trainer.devices), or, with SLURM, ask for one per task (--gpus-per-task=1)."
            )


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    missing = [name for name in TORCHRUN if name not in environment]
    if missing:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set in the environment but {', '.join(missing)} not. Start the run "
            "with torchrun, which sets all, or unset them."
        )
    rank, world_size, local_rank, local_world_size = (int(environment[name]) for name in TORCHRUN[:4])
    if world_size % local_world_size:
        raise ConfigError(
            f"{world_size} processes on machines of {local_world_size}: start as many on each machine."
        )
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    return Place(rank, world_size, local_rank, local_world_size, address, port)


def _of_slurm(environment: Mapping[str, str]) -> Place:
    # Lightning knows how SLURM writes lists of hosts.
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    rank, world_size = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    if world_size % nodes:
        raise ConfigError(
            f"SLURM started {world_size} tasks on {nodes} machines: ask for as many on each "
            "(--ntasks-per-node)."
        )
    # A step may run on some of the machines of its job only.
    machines = environment.get("SLURM_STEP_NODELIST", environment["SLURM_NODELIST"])
    address = SLURMEnvironment.resolve_root_node_address(machines)
    # Jobs that share a machine differ in their numbers, and so do the steps of a job.
    step = int(environment.get("SLURM_STEP_ID", "0"))
    port = FIRST_PORT + (int(environment["SLURM_JOB_ID"][-4:]) + STEP_PORTS * step) % NUM_PORTS
    local_rank = int(environment["SLURM_LOCALID"])
    return Place(rank, world_size, local_rank, world_size // nodes, address, port)
