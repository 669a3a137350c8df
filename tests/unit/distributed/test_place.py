"""The place of a process, as torchrun and SLURM tell it."""

import pytest

from loralab.distributed.place import Place, check_own_gpus, place_of
from loralab.errors import ConfigError

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1", "MASTER_PORT": "29500",
}  # fmt: skip
SLURM = {
    "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_NNODES": "2",
    "SLURM_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "41234",
}  # fmt: skip


def test_a_process_that_is_told_nothing_is_alone() -> None:
    assert place_of({}) == Place(rank=0, world_size=1, local_rank=0, local_world_size=1)


def test_a_single_task_of_slurm_is_alone() -> None:
    assert place_of({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}).world_size == 1


def test_a_command_in_the_script_of_a_job_waits_for_nobody() -> None:
    script = {name: value for name, value in SLURM.items() if not name.startswith("SLURM_STEP")}
    assert place_of({**script, "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}).world_size == 1


def test_torchrun_says_where_a_process_is() -> None:
    place = place_of(TORCHRUN)
    assert place == Place(5, 8, 1, 4, "node1", 29500)
    assert place.num_nodes == 2
    assert place.to_environment() == TORCHRUN


def test_slurm_says_where_a_process_is() -> None:
    # The port is 15000 and the last four digits of the job's number.
    assert place_of(SLURM) == Place(5, 8, 1, 4, "gpu07", 16234)


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(ConfigError, match="RANK and WORLD_SIZE are set in the environment but LOCAL_RANK"):
        place_of({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    "environment", [{**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, {**SLURM, "SLURM_NNODES": "3"}]
)
def test_machines_with_different_numbers_of_processes_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="as many on each"):
        place_of(environment)


def test_a_step_of_slurm_meets_on_its_own_machines() -> None:
    step = {**SLURM, "SLURM_STEP_NODELIST": "gpu08", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_ID": "9"}
    # 1234 + 9 * 1000 is 10234: the ports begin again after 10,000.
    assert place_of(step) == Place(5, 8, 1, 8, "gpu08", 15_234)


def test_processes_that_share_a_gpu_are_refused() -> None:
    check_own_gpus(["here A 1", "here A 2", "there A 3"])
    with pytest.raises(ConfigError, match=r"processes 1 and 2 share a GPU \(here A 2\): .*trainer\.devices"):
        check_own_gpus(["here A 1", "here A 2", "here A 2"])
