"""Memory that is sampled."""

from process import PeakMemory


def test_what_is_over_before_the_first_sample_has_a_peak() -> None:
    with PeakMemory() as peak:
        pass

    assert 0.01 < peak.gib < 64  # this process, in GiB
