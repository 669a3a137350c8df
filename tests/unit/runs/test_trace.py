"""Traces written by hand: every moment of a step belongs to one part, whoever did the work."""

from collections import Counter
from typing import Any

import pytest

from loralab.runs.step_parts import Part
from loralab.runs.trace import NOTHING, Frame, Slice, fill, measure_steps

EVALUATE = "autograd::engine::evaluate_function: "
MAIN, AUTOGRAD, STREAM = 1, 2, "stream 7"
LOOP = Part("rest", "loop")


def event(
    name: str, start: float, end: float, category: str = "user_annotation", **more: Any
) -> dict[str, Any]:
    tid = more.pop("tid", MAIN)
    return {
        "ph": "X", "cat": category, "name": name, "tid": tid, "ts": start, "dur": end - start, "args": more
    }  # fmt: skip


def operator(
    name: str, start: float, end: float, number: int | None = None, tid: int = MAIN
) -> dict[str, Any]:
    more = {} if number is None else {"Sequence number": number}
    return event(name, start, end, "cpu_op", tid=tid, **more)


def launch(start: float, correlation: int, tid: int = MAIN) -> dict[str, Any]:
    return event("cudaLaunchKernel", start, start + 1, "cuda_runtime", tid=tid, correlation=correlation)


def kernel(start: float, end: float, correlation: int, name: str = "gemm") -> dict[str, Any]:
    return event(name, start, end, "kernel", tid=STREAM, correlation=correlation)


STEP = [
    event("step 6", 0, 1000),
    event("data: waiting for the loader", 10, 30),
    event("forward", 100, 400),
    event("rest of the layers: model", 110, 300),
    event("attention: model.layers.0.self_attn", 120, 280),
    event("linear layers with adapter: model.layers.0.self_attn.q_proj", 130, 200),
    operator("FusedLora", 140, 190, number=0),
    operator("aten::mm", 150, 180),
    operator("aten::softmax", 210, 250, number=1),
    operator("aten::add", 285, 295, number=2),
    operator("_FrozenNll", 310, 390, number=3),
    event("backward", 400, 800),
    operator(f"{EVALUATE}_FrozenNllBackward", 410, 430, number=3),
    operator(f"{EVALUATE}SoftmaxBackward0", 430, 500, number=1),
    operator("SoftmaxBackward0", 435, 495, number=1),
    operator(f"{EVALUATE}FusedLoraBackward", 500, 700, number=0),
    operator(f"{EVALUATE}torch::autograd::AccumulateGrad", 700, 720),
    event("optimizer", 800, 950),
    event("Optimizer.step#AdamW.step", 850, 900),
    event("publishing", 910, 940),
    event("callbacks and logging: Recorder.on_train_batch_end", 960, 990),
]
PARTS = {
    ("data", "waiting for the loader"): 20,
    # 300 of the forward pass less 190 of the decoder
    ("forward", "output head and loss"): 110,
    ("forward", "rest of the layers"): 30,
    ("forward", "attention"): 90,
    ("forward", "linear layers with adapter"): 70,
    ("backward", "output head and loss"): 20,
    ("backward", "attention"): 70,
    ("backward", "linear layers with adapter"): 200,
    ("backward", "gathering gradients"): 20,
    # what no node of the graph accounts for, before and after them
    ("backward", "between layers"): 90,
    ("optimizer", "clipping and checks"): 70,
    ("optimizer", "update"): 50,
    ("optimizer", "publishing"): 30,
    ("rest", "callbacks and logging"): 30,
    # 0 to 10, 30 to 100, 950 to 960, 990 to 1000
    ("rest", "loop"): 100,
}


def test_the_parts_of_a_step_on_a_cpu_add_up_to_it() -> None:
    times = measure_steps(STEP, [6])
    assert times.parts == PARTS
    assert sum(PARTS.values()) == times.wall == 1000
    assert times.num_steps == 1
    assert not times.on_gpu


def test_operators_count_without_those_that_they_call() -> None:
    times = measure_steps(STEP, [6])
    assert times.operators["FusedLora"] == 20
    assert times.operators["aten::mm"] == 30
    assert times.operators[f"{EVALUATE}SoftmaxBackward0"] == 10
    assert times.operator_calls["aten::mm"] == 1


def test_calls_are_of_modules_and_of_nodes() -> None:
    twice = [*STEP, event("norms: model.norm", 252, 256), event("norms: model.norm", 258, 262)]
    calls = measure_steps(twice, [6]).part_calls
    assert calls["forward", "norms"] == 2
    assert calls["forward", "attention"] == 1
    assert calls["backward", "attention"] == 1


def test_only_steps_that_were_finished_count() -> None:
    later = [
        {**each, "ts": each["ts"] + 2000, "name": each["name"].replace("step 6", "step 7")} for each in STEP
    ]
    assert measure_steps([*STEP, *later], [6]).parts == PARTS
    both = measure_steps([*STEP, *later], [6, 7])
    assert both.parts == {part: 2 * time for part, time in PARTS.items()}
    assert both.num_steps == 2
    assert measure_steps(STEP, [5]).num_steps == 0
    assert measure_steps(STEP, [5]).parts == {}


def test_modules_that_run_in_the_backward_pass_are_recomputed() -> None:
    recomputed = [
        event("attention: model.layers.0.self_attn", 510, 560),
        event("linear layers with adapter: model.layers.0.self_attn.q_proj", 520, 540),
        operator("FusedLora", 525, 535, number=0),
    ]
    parts = measure_steps([*STEP, *recomputed], [6]).parts
    assert parts["recomputed", "attention"] == 30
    assert parts["recomputed", "linear layers with adapter"] == 20
    assert parts["backward", "linear layers with adapter"] == 150
    assert sum(parts.values()) == 1000


def test_a_gradient_found_in_the_forward_pass_is_of_the_head() -> None:
    inside = [
        event("output head and loss: lm_head", 320, 330),
        operator("aten::linear", 322, 328, number=3),
        operator(f"{EVALUATE}MmBackward0", 340, 380, number=3),
    ]
    parts = measure_steps([*STEP, *inside], [6]).parts
    assert parts["forward", "output head and loss"] == 110
    assert parts["backward", "output head and loss"] == 20


def test_an_operator_that_makes_no_node_leaves_its_number_to_the_next() -> None:
    events = [
        event("step 1", 0, 100),
        event("forward", 0, 50),
        event("embedding: model.embed_tokens", 0, 10),
        operator("aten::arange", 2, 4, number=7),
        event("norms: model.norm", 20, 30),
        operator("aten::rsqrt", 22, 28, number=7),
        event("backward", 50, 100),
        operator(f"{EVALUATE}RsqrtBackward0", 60, 90, number=7),
    ]
    assert measure_steps(events, [1]).parts["backward", "norms"] == 30


GPU_STEP = [
    event("step 1", 0, 1000),
    event("data: waiting for the loader", 0, 100),
    event("forward", 100, 200),
    event("attention: a", 110, 190),
    operator("aten::sdpa", 120, 180, number=0),
    launch(130, 11),
    event("backward", 200, 600),
    # another thread runs the backward pass, and the GPU runs behind it
    operator(f"{EVALUATE}SdpaBackward0", 250, 350, number=0, tid=AUTOGRAD),
    operator("SdpaBackward0", 260, 340, number=0, tid=AUTOGRAD),
    launch(300, 12, AUTOGRAD),
    event("optimizer", 600, 700),
    operator("aten::norm", 610, 620),
    launch(612, 13),
    kernel(150, 450, 11),
    kernel(450, 650, 12),
    kernel(680, 900, 13, "norm"),
]


def test_on_a_gpu_time_belongs_to_what_launched_the_kernel_that_runs() -> None:
    times = measure_steps(GPU_STEP, [1])
    assert times.on_gpu
    assert times.parts == {
        ("data", "waiting for the loader"): 100,
        ("forward", "attention"): 300,
        ("backward", "attention"): 200,
        ("optimizer", "clipping and checks"): 220,
        # 100 to 150 and 650 to 680
        ("rest", "GPU waits for the CPU"): 80,
        ("rest", "loop"): 100,
    }
    assert times.operators == {"aten::sdpa": 300, "SdpaBackward0": 200, "aten::norm": 220}


def test_exchanges_between_gpus_count_where_nothing_else_runs() -> None:
    exchange = [
        operator("c10d::allreduce_", 630, 640),
        launch(632, 14),
        kernel(400, 800, 14, "ncclDevKernel"),
    ]
    parts = measure_steps([*GPU_STEP, *exchange], [1]).parts
    assert parts["processes", "exchange"] == 30
    assert parts["forward", "attention"] == 300
    assert sum(parts.values()) == pytest.approx(1000)


def test_kernels_beside_each_other_are_not_counted_twice() -> None:
    parts = measure_steps([*GPU_STEP, kernel(200, 500, 13)], [1]).parts
    # 450 to 500 is taken by the one that began at 200
    assert parts["optimizer", "clipping and checks"] == 270
    assert parts["backward", "attention"] == 150
    assert sum(parts.values()) == 1000


def test_slices_are_laid_into_gaps() -> None:
    frame = Frame(LOOP, None)
    slices = [Slice(0, 5, frame), Slice(4, 12, NOTHING), Slice(30, 40, frame)]
    taken, left = fill([(2, 10), (11, 20), (35, 36)], slices)
    assert [tuple(each[:2]) for each in taken] == [(2, 5), (5, 10), (11, 12), (35, 36)]
    assert left == [(12, 20)]
    assert fill([(0, 9)], []) == ([], [(0, 9)])


def test_an_event_that_sticks_out_of_another_by_rounding_ends_with_it() -> None:
    events = [event("step 1", 0, 100), event("forward", 10, 60), operator("aten::mm", 50, 60.5)]
    times = measure_steps(events, [1])
    assert times.parts == {("rest", "loop"): 50, ("forward", "output head and loss"): 50}
    assert times.operators == {"aten::mm": 10}
    assert times.operator_calls == Counter({"aten::mm": 1})
