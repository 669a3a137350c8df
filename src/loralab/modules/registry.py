"""Objectives by name."""

from loralab.modules.base import AdapterModule
from loralab.modules.sft import SFTModule

MODULES: dict[str, type[AdapterModule]] = {"sft": SFTModule}
"""Modules by `objective.name`."""
