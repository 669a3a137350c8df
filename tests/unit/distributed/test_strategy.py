"""Lightning's own exchanges tell of a lost process as ours do."""

from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from loralab.distributed.place import Place
from loralab.distributed.strategy import Replicas
from loralab.errors import ProcessLost


@pytest.mark.parametrize("exchange", ["reduce", "broadcast"])
def test_an_exchange_that_breaks_off_is_a_lost_process(
    exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("NCCL error in: here.cpp\nncclSystemError: a call failed\nLast error:\nclosed\n")

    monkeypatch.setattr(DDPStrategy, exchange, broken)
    replicas = Replicas(Place(0, 2, 0, 2, "here", 1), torch.device("cpu"))
    told = r"another process of the run ended \(NCCL error in: here.cpp; closed\)"
    with pytest.raises(ProcessLost, match=told):
        getattr(replicas, exchange)(torch.tensor(1))


def test_a_process_computes_on_its_own_device_whatever_its_number() -> None:
    replicas = Replicas(Place(3, 4, 1, 2, "here", 1), torch.device("cuda", 0))
    assert replicas.root_device == torch.device("cuda", 0)
    assert len(replicas.parallel_devices or []) == 2
