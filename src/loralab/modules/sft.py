"""Supervised fine-tuning."""

from peft import PeftModel

from loralab.data.collate import MicroBatch
from loralab.losses.parts import LossParts
from loralab.losses.sft import supervised_positions, token_nll
from loralab.model.head import hidden_states, projection
from loralab.model.lora import causal_lm
from loralab.model.noise import noisy_embeddings
from loralab.modules.base import AdapterModule


def token_losses(model: PeftModel, batch: MicroBatch) -> LossParts:
    """Returns the negative log likelihood of every supervised token, with its weight and source."""
    hidden = hidden_states(model, batch)
    chosen = supervised_positions(batch.labels)
    losses = token_nll(hidden[:, :-1][chosen], batch.labels[:, 1:][chosen], projection(causal_lm(model)))
    return LossParts(
        losses,
        None if batch.weights is None else batch.weights[:, 1:][chosen],
        None if batch.sources is None else batch.sources[:, 1:][chosen],
    )


class SFTModule(AdapterModule):
    """Cross entropy on the supervised tokens."""

    def item_losses(self, batch: MicroBatch) -> LossParts:
        """Returns the cross entropy of each supervised token; in training with the noise of NEFTune."""
        alpha = self.config.trainer.neftune_alpha if self.training else 0.0
        with noisy_embeddings(causal_lm(self.model), batch, alpha):
            return token_losses(self.model, batch)
