"""What of a model runs in fewer passes over memory, as `trainer.speed` lets it."""

from peft import PeftModel

from loralab.config.speed import SpeedConfig
from loralab.model.elementwise import recompute_elementwise
from loralab.model.fused_feed_forward import fuse_feed_forward
from loralab.model.fused_lora import fuse_lora
from loralab.model.rotary import replace_rotary


def run_faster(model: PeftModel, speed: SpeedConfig) -> None:
    """Replaces the forward passes of layers by faster ones of the same numbers, in place.

    Args:
        model: The adapted model.
        speed: Which of them.
    """
    if speed.fused_lora:
        fuse_lora(model)
    if speed.recompute_elementwise:
        recompute_elementwise(model)
        replace_rotary(model)
    # Compiled gates take the place of whole layers' passes later.
    if speed.fused_lora and speed.recompute_elementwise and not speed.compile:
        fuse_feed_forward(model)
