from collections import Counter

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from loralab.model.tracing import MOMENTARY, Event, StorageLog, peaks

KIB = 1024
SIDE = 16
"""A float32 square of this side takes one KiB."""


def square(requires_grad: bool = False) -> torch.Tensor:
    return torch.empty(SIDE, SIDE, requires_grad=requires_grad)


def live(log: StorageLog) -> int:
    return sum(event.delta for event in log.events)


def highest(log: StorageLog) -> int:
    return max(parts.total() for parts in peaks(log.events, lambda number: "all").values())


def test_views_and_results_in_place_are_no_new_memory():
    with FakeTensorMode():
        given = square()
        with StorageLog() as log:
            made = given + 1
            seen = [made.t(), given.view(-1), made.mul_(2), given[0]]
        assert len(seen) == 4
        assert live(log) == KIB


def test_memory_goes_when_the_last_view_goes():
    with FakeTensorMode(), StorageLog() as log:
        made = square()
        view = made.view(-1)
        del made
        assert live(log) == KIB
        del view
        assert live(log) == 0


def test_a_frozen_linear_layer_saves_nothing_but_its_output():
    with FakeTensorMode():
        given, weight = square(requires_grad=True), square()
        with StorageLog() as log:
            output = F.linear(given, weight)
    assert output.requires_grad
    assert live(log) == KIB


def test_a_trained_linear_layer_keeps_its_input():
    with FakeTensorMode():
        given, weight = square(), square(requires_grad=True)
        with StorageLog() as log:
            output = F.linear(given + 1, weight)
    assert output.requires_grad
    assert live(log) == 2 * KIB


def test_a_gated_unit_keeps_what_its_backward_needs():
    # silu(gate) x up: gate and up belong to the caller; silu's output and the product are made here.
    with FakeTensorMode():
        gate, up = square(requires_grad=True), square(requires_grad=True)
        with StorageLog() as log:
            product = F.silu(gate) * up
            assert live(log) == 2 * KIB
            del product
            assert live(log) == 0


def test_the_backward_of_a_gated_unit_peaks_as_by_hand():
    # silu, the gradient of the product, and at the highest moment the gradients of silu, gate and up.
    with FakeTensorMode():
        gate, up, upstream = square(requires_grad=True), square(requires_grad=True), square()
        product = F.silu(gate) * up
        with StorageLog() as log:
            product.backward(upstream)
        assert live(log) == 2 * KIB
    assert highest(log) == 3 * KIB


def test_hidden_memory_counts_only_while_the_operator_runs():
    hidden = {torch.ops.aten.mm.default: lambda left, right: 5 * KIB}
    with FakeTensorMode():
        left, right = square(), square()
        with StorageLog(hidden) as log:
            product = left @ right
    assert product.shape == (SIDE, SIDE)
    assert live(log) == KIB
    assert highest(log) == 6 * KIB


def test_real_tensors_are_logged_alike():
    given = torch.zeros(SIDE, SIDE)
    with StorageLog() as log:
        total = (given + 1).sum()
    assert total == SIDE * SIDE
    assert (live(log), highest(log)) == (4, KIB + 4)


def test_peaks_are_found_for_each_stage():
    events = [
        Event(0, 10, "forward"), Event(1, 5, "forward"), Event(1, -5, "forward"),
        Event(MOMENTARY, 3, "backward"), Event(MOMENTARY, -3, "backward"), Event(0, -10, "backward"),
        Event(2, 4, "backward"),
    ]  # fmt: skip
    kinds = {0: "kept", 1: "short", 2: "gradient", MOMENTARY: "hidden"}
    assert peaks(events, kinds.__getitem__) == {
        "forward": Counter(kept=10, short=5),
        "backward": Counter(kept=10, short=0, hidden=3),
    }
