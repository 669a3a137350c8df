"""Incidents and watched prompts as the report shows them."""

from loralab.evaluation.run_record import RunRecord
from loralab.evaluation.run_tables import describe_course, incident_table, watch_tables


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
