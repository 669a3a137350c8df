"""The memory of many sizes of a run from the traces of a few.

At every stage of a step memory is the largest of straight lines in the rows of the micro-batch, and as good as
straight in the rank. So what lies between two traces is at most on the line between them, and beyond the
largest traced micro-batch, where everything that grows with rows is largest already, on the line through the
last two.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.lora import check_adapter
from loralab.model.memory import (
    FLOAT32_BYTES,
    GRADIENTS,
    PARTS,
    UPDATE,
    MemoryEstimate,
    MemoryRequest,
    build_shadow,
    static_parts,
    trace_step,
)
from loralab.model.memory_advice import resized
from loralab.optim.master import trainable_count

TRACED_TOKENS = 65_536
"""Tokens of the largest micro-batch that is traced: all that grows with rows outweighs a layer's weights."""
RANKED_METHODS = ("lora", "adalora", "vera")
"""Methods of the group `lora` that have a rank."""
