"""A frozen base that several processes hold together: each keeps a share of every decoder layer."""

from peft import PeftModel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from loralab.config.model import ModelConfig
from loralab.distributed.group import world_size
from loralab.errors import ModelError
from loralab.model.layer_samples import decoder_layers
from loralab.model.lora import adapter_parameters, causal_lm
from loralab.model.prequantized import Prequantized

SPLITTABLE = ("nf4", "fp4")
"""How weights that are quantized already may be stored."""


def check_splittable(config: ModelConfig, found: Prequantized | None) -> None:
    """Refuses a base that is quantized already in a way whose weights cannot be split.

    Raises:
        ModelError: It is.
    """
    if found is not None and found.scheme not in SPLITTABLE:
        raise ModelError(
            f"trainer.strategy=fsdp cannot split model={config.name}, which is already quantized "
            f"({found.label}). Use trainer.strategy=ddp, or the unquantized model with quant=nf4."
        )


def shard_base(model: PeftModel) -> None:
    """Splits the weights of the decoder layers among the processes of the run (FSDP, arXiv:2304.11277).

    A layer is put together before it runs, forward and backward, and given up after it. The adapter, the
    embeddings and the head stay whole in every process: the adapter trains as it does without.

    Args:
        model: An adapted model on the device of this process.

    Raises:
        ModelError: Its layers cannot be told.
    """
    base = causal_lm(model)
    layers = decoder_layers(base)
    if layers is None:
        raise ModelError(
            f"trainer.strategy=fsdp splits decoder layers, and {type(base).__name__} keeps no list of them. "
            "Use trainer.strategy=ddp."
        )
    mesh = init_device_mesh(base.device.type, (world_size(),))
    whole = set(adapter_parameters(model))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    inside = {id(parameter) for parameter in layers.parameters()}
    outside = {parameter for parameter in base.base_model.parameters() if id(parameter) not in inside}
    # The decoder is what all layers belong to; by it one layer can be fetched while another runs.
    fully_shard(base.base_model, mesh=mesh, ignored_params=whole | outside)
    # transformers then lets all processes generate as long as any of them does.
    base._is_fsdp_managed_module = True  # type: ignore[assignment]
