"""Tables of the report say what the files of a run say."""

from dataclasses import replace

from loralab.evaluation.adapter_report import LayerUpdate
from loralab.evaluation.report_tables import adapter_table, estimate_table, memory_table, quantization_table

STAGE = {
    "stage": "first_step",
    "peak_gib": 2.0,
    "resident_gib": 1.5,
    "allocated_gib": None,
    "reserved_gib": None,
}


def test_nothing_measured_shows_no_table() -> None:
    assert (memory_table({}), estimate_table({}), quantization_table([]), adapter_table([])) == (None,) * 4


def test_stages_show_what_there_is() -> None:
    table = memory_table({"stages": [STAGE]})
    assert table is not None
    assert table.rows == [("first step", "2.000", "1.500", "\N{EN DASH}", "\N{EN DASH}")]


def test_the_estimate_stands_beside_the_measurement() -> None:
    table = estimate_table({"estimate": {"logits": 2**29, "activations": 2**30}, "measured_peak_gib": 2.0})
    assert table is not None
    assert table.rows[-3:] == [
        ("estimated peak", "1.500"), ("measured peak", "2.000"), ("estimate / measured", "75.0%")
    ]  # fmt: skip


def test_storage_is_shown_by_kind() -> None:
    layer = {
        "name": "q_proj x 30", "num_values": 1_000_000, "bytes_full": 2 * 2**20, "bytes_stored": 2**19,
        "bits_per_value": 4.127, "relative_error": 0.0939,
    }  # fmt: skip
    table = quantization_table([layer, {**layer, "relative_error": None}])
    assert table is not None
    assert table.rows[0] == ("q_proj x 30", "1,000,000", "2.0", "0.5", "4.127", "9.39%")
    assert table.rows[1][-1] == "\N{EN DASH}"


def test_updates_are_grouped_and_the_suggestion_can_be_copied() -> None:
    updates = [
        LayerUpdate(
            name=f"model.layers.{layer}.self_attn.q_proj",
            rank=8,
            width=32,
            scale=2.0,
            rslora=False,
            norm=0.5 + layer,
            effective_rank=2.0 + layer,
            gradient_rms=None,
        )
        for layer in range(2)
    ]
    table = adapter_table(updates)
    assert table is not None
    assert table.rows == [("q_proj x 2", "0.5 to 1.5", "2.0 to 3.0", "8", "\N{EN DASH}")]
    assert "rank_pattern" in table.code
    assert "2 r" not in table.note
    doubled = adapter_table([replace(update, doubled=True) for update in updates])
    assert doubled is not None
    assert doubled.rows[0][3] == "16"
    assert "The rank is 2 r" in doubled.note
