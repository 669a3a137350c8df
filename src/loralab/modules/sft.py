"""Supervised fine-tuning."""

from torch import Tensor

from loralab.data.collate import MicroBatch
from loralab.losses.sft import cross_entropy_sum, supervised_positions
from loralab.model.head import hidden_states, projection
from loralab.model.lora import causal_lm
from loralab.modules.base import AdapterModule


class SFTModule(AdapterModule):
    """Cross entropy on the supervised tokens."""

    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Returns the summed cross entropy and the number of supervised tokens."""
        base = causal_lm(self.model)
        hidden = hidden_states(base, batch.input_ids, batch.attention_mask)
        hidden, targets = supervised_positions(hidden, batch.labels)
        return cross_entropy_sum(hidden, targets, projection(base)), targets.new_tensor(len(targets))
