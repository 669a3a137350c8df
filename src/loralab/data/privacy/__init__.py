"""Personal data and secrets: finding, counting and masking them."""

from loralab.data.privacy.findings import FINDERS, Finding, check_kinds, find_private, mask
from loralab.data.privacy.rows import mask_record, quote_findings, scan_record

__all__ = [
    "FINDERS",
    "Finding",
    "check_kinds",
    "find_private",
    "mask",
    "mask_record",
    "quote_findings",
    "scan_record",
]
