"""Personal data and secrets: finding, counting and masking them."""

from loralab.data.privacy.findings import (
    FINDERS,
    Finding,
    check_kinds,
    find_private,
    mask,
    mask_text,
    quoted_kinds,
)
from loralab.data.privacy.rows import mask_record, mask_strings, quote_findings, scan_record

__all__ = [
    "FINDERS",
    "Finding",
    "check_kinds",
    "find_private",
    "mask",
    "mask_record",
    "mask_strings",
    "mask_text",
    "quote_findings",
    "quoted_kinds",
    "scan_record",
]
