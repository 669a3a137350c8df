"""Incidents and watched prompts as the report shows them."""

from loralab.evaluation.run_record import RunRecord
from loralab.evaluation.run_tables import describe_course, incident_table, profile_tables, watch_tables
from loralab.runs.profile import Row, StepProfile


def test_incidents_are_listed_with_their_first_rows() -> None:
    rows = [f"a.jsonl line {number}" for number in range(1, 11)]
    line = {"step": 7, "incident/kind": "skipped", "incident/cause": "loss nan", "incident/rows": rows}
    table = incident_table([{"step": 1, "train/loss": 2.0}, line])
    assert table is not None
    assert table.rows == [("7", "skipped", "loss nan", f"{', '.join(rows[:8])} and 2 more")]
    assert incident_table([{"step": 1, "train/loss": 2.0}]) is None


def test_each_prompt_has_a_table_of_its_answers_over_time() -> None:
    rows = [
        {"step": step, "prompt": prompt, "reference": "4", "answer": f"{prompt}{step}"}
        for step in (0, 50)
        for prompt in ("2+2", "1+3")
    ]
    first, second = watch_tables(rows)
    assert first.note == "2+2"
    assert list(first.rows) == [("base", "2+20"), ("50", "2+250"), ("reference", "4")]
    assert second.note == "1+3"
    assert list(watch_tables([])) == []


def test_the_course_says_why_it_ended_and_where_it_was_best() -> None:
    losses = {0: 0.1, 5: 0.5, 10: 0.25, 15: float("nan"), 20: 0.3}  # step 0 is the base model
    lines = [{"step": step, "val/loss": loss} for step, loss in losses.items()]
    best = "lowest validation loss 0.25 after step 10"
    assert describe_course(RunRecord("r", metrics=lines), 1000) == f"of at most 1,000; {best}"
    stopped = RunRecord("r", metrics=lines, summary={"stopped_early": "no better"})
    assert describe_course(stopped, 1000) == f"stopped early: no better; {best}"
    assert describe_course(RunRecord("r"), None) == ""


def test_a_profile_has_a_table_of_parts_and_one_of_operators() -> None:
    parts = (Row("forward", "attention", 150.0, 0.75, 30), Row("rest", "loop", 50.0, 0.25, 1))
    operators = (Row("", "aten::mm", 1234.5, 0.5, 2.5),)
    found = StepProfile(6, 3, "cpu", 200.0, 350.0, 360.0, 4, parts, operators)
    first, second = profile_tables(found.to_json())
    assert list(first.rows) == [
        ("forward: attention", "150.00", "75.0%", "30"),
        ("rest: loop", "50.00", "25.0%", "1"),
        ("step", "200.00", "100.0%", ""),
    ]
    assert first.note.startswith("Steps 6 to 8: 200.0 ms each, 350 tokens/s; in the 4 steps before, without")
    assert "GPU" not in first.note
    assert list(second.rows) == [("aten::mm", "1,234.50", "50.0%", "2.5")]
    assert list(profile_tables({})) == []
    (on_gpu, _) = profile_tables({**found.to_json(), "device": "cuda"})
    assert "Times are those of kernels on the GPU" in on_gpu.note
