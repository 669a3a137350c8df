"""Gradient checkpointing: activations of decoder layers that are computed anew in the backward pass."""

from transformers import PreTrainedModel

from loralab.errors import ConfigError
from loralab.model.offloading import Link, offload_inputs


def recompute_layers(model: PreTrainedModel, every: bool | int, link: Link | None = None) -> None:
    """Lets decoder layers keep their inputs alone (arXiv:1604.06174, section 4).

    Args:
        model: The base.
        every: True for all layers, n for every n-th from the first one on, False for none.
        link: Where their inputs wait; None leaves them where they are.

    Raises:
        ConfigError: The model cannot.
    """
    if not every:
        return
    try:
        model.activation_checkpointing_enable(every_n_layers=int(every))
    except ValueError as error:
        raise ConfigError(
            f"trainer.gradient_checkpointing={str(every).lower()} is not possible with "
            f"{type(model).__name__}. Set it to false."
        ) from error
    if link is not None:
        offload_inputs(model, link)
