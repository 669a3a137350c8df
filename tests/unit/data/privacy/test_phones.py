"""What is a telephone number, and what is another number."""

import json
from pathlib import Path

import pytest

from loralab.data.privacy.phones import find_phones


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in find_phones(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call +1 555 123 4567 now", "+1 555 123 4567"),
        ("+15551234567", "+15551234567"),
        ("(+49 30 1234567)", "+49 30 1234567"),
        ("+49 (0)30 / 12 34 567", "+49 (0)30 / 12 34 567"),
        ("+33 6 12 34 56 78.", "+33 6 12 34 56 78"),
        ("0049 30 1234567", "0049 30 1234567"),
        ("(555) 123-4567", "(555) 123-4567"),
        ("1 (555) 123-4567", "1 (555) 123-4567"),
        ("- 555-123-4567", "555-123-4567"),
        ("555.123.4567", "555.123.4567"),
        ("1-800-555-0199", "1-800-555-0199"),
        ("030 1234567", "030 1234567"),
        ("Tel. 089/1234567", "089/1234567"),
        ("0171-1234567", "0171-1234567"),
        ("020 7946 0958", "020 7946 0958"),
        ("03-1234-5678", "03-1234-5678"),
        ("01 45 23 67 89", "01 45 23 67 89"),
        ("(11) 91234-5678", "(11) 91234-5678"),
        ("138 1234 5678", "138 1234 5678"),
        ("call me at 555-0199", "555-0199"),
        ("Phone number: 5551234567", "5551234567"),
        ("phone=555-123-4567", "555-123-4567"),
        ("06.12.34.56.78", "06.12.34.56.78"),
        ("001 555 123 4567", "001 555 123 4567"),
        ("+4712345678", "+4712345678"),
        ("ask 212-555-0187 Ms Smith", "212-555-0187"),
        ("+352 27 12 34 56", "+352 27 12 34 56"),
    ],
)
def test_telephone_numbers_are_found(text: str, expected: str) -> None:
    assert found(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "12345678 and 4915551234567",
        "16-3-4=9 and 48/2 = 24",
        "500-100-1000 = -600",
        "= 900-100-1000",
        "<<100+200+300000=300300>>",
        "5 +12345678",
        "x+12345678",
        "2020-01-02 10:30:00, 01/02/2020, 01.02.2020, 01-02-2020",
        "from 1999-2000 to 2020-2021; what they call 1999-2000",
        "$1,234,567.89 or $ 555.123.4567",
        "pages 100-200, 1000-2000",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISBN 0306 406152",
        "v1.22.333.4444 and 10.123.456.7890",
        "192.168.100.200 and 127.0.0.1:8080",
        "12 030 1234567 5",
        "05 10 15 20 25",
        "010 011 100 101",
        "0.123 456 789",
        "123-45-6789 and ZIP 02134-1000",
        "550e8400-e29b-41d4-a716-446655440000",
        "call 1000000 times; the mobile 2000000 units",
        "1 000 000 000",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "+1 2 3 4 5 6 7 8",
        "078-05-1120",
        "costs 200.000.0000 in total",
        "250-500-1000 mg, 100.000.000 rupiah",
        "+100000000 users, +10000000 downloads",
        "a gain of +12345678 or of +1234567890",
        "0010 0011 0101",
        "scores 0412 0513 0614",
        "room 0012 345 678",
        "call 10.1000.10000 functions; mobile: 5551234567 users",
        "coordinates 40.712776, -74.005974; lat 48.8566140 lon 2.3522219",
        "51\N{DEGREE SIGN}30'26\" N 0\N{DEGREE SIGN}7'39\" W",
        "10.0.19045.3693, 4.18.0-348.el8, foo==0.12.345.6789",
        "2023/11/05 14:30:22.123456, 20231105-143022, 1699193422",
        "doi:10.1038/s41586-020-2649-2, arXiv 2005.14165, CAS 555-123-1234-5",
        "ISBN 978-0-306-40615-7, ISBN-10: 0-19-852663-6, ISSN 0317-8471",
        "order number 4005550123456, tracking 1Z 999 AA1 01 2345 6784",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert found(text) == []


def test_two_numbers_beside_each_other_are_both_found_by_their_signs() -> None:
    assert found("+49 30 1234567, +49 30 7654321") == ["+49 30 1234567", "+49 30 7654321"]


def test_more_digits_than_a_number_may_have_are_cut_at_a_group() -> None:
    assert found("+49 30 1234567 2020 2021") == ["+49 30 1234567 2020"]


def test_arithmetic_of_school_children_has_no_telephone_numbers(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "gsm8k_train.jsonl").read_text("utf-8").splitlines()]
    assert [found(row["question"]) + found(row["answer"]) for row in rows] == [[]] * 7473
