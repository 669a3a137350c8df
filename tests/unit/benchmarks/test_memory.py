"""Cases of memory that are measured beside each other."""

import time
from collections.abc import Mapping
from typing import Any

import memory
import pytest


def test_results_come_in_the_order_of_the_cases_whichever_is_done_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure(case: dict[str, Any], environment: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        time.sleep(0.05 if case["rows"] == 1 else 0)
        return case["rows"], dict(environment)

    monkeypatch.setattr(memory, "alone", measure)

    results = list(memory.together([{"rows": 1}, {"rows": 2}], 2, {"LD_PRELOAD": ""}))

    told = {"LD_PRELOAD": "", "OMP_NUM_THREADS": "1"}
    assert results == [(1, told), (2, told)]
