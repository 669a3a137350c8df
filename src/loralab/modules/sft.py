"""Supervised fine-tuning."""

from peft import PeftModel
from torch import Tensor

from loralab.config.speed import SpeedConfig
from loralab.data.collate import MicroBatch
from loralab.losses.parts import LossParts
from loralab.losses.sft import supervised_positions
from loralab.model.head import hidden_states, target_nll
from loralab.model.lora import causal_lm
from loralab.model.noise import noisy_embeddings
from loralab.modules.base import AdapterModule


def token_losses(model: PeftModel, batch: MicroBatch, speed: SpeedConfig | None = None) -> LossParts:
    """Returns the negative log likelihood of every supervised token, with its weight and source."""
    chosen = supervised_positions(batch.labels)
    return _losses_at(model, batch, hidden_states(model, batch), chosen, speed)


def response_and_prompt_losses(model: PeftModel, batch: MicroBatch) -> tuple[LossParts, LossParts]:
    """Returns the losses of the supervised tokens, and of the text before and between them.

    The decoder runs once; the second set of logits is the only cost of the prompts.
    """
    hidden, learned = hidden_states(model, batch), supervised_positions(batch.labels)
    prompt = (batch.attention_mask[:, 1:] == 1) & ~learned & batch.is_counted
    if batch.position_ids is not None:
        # Where rows lie end to end, the first token of one does not follow from the last of another.
        prompt &= batch.position_ids[:, 1:] > 0
    unweighted = batch._replace(weights=None)
    return _losses_at(model, batch, hidden, learned), _losses_at(model, unweighted, hidden, prompt)


def _losses_at(
    model: PeftModel, batch: MicroBatch, hidden: Tensor, chosen: Tensor, speed: SpeedConfig | None = None
) -> LossParts:
    """Returns the losses of chosen tokens: [batch, seq - 1] of those after the first."""
    speed = speed or SpeedConfig(liger=False)
    base, targets = causal_lm(model), batch.input_ids[:, 1:][chosen]
    losses = target_nll(base, hidden[:, :-1][chosen], targets, speed)
    return LossParts(
        losses,
        None if batch.weights is None else batch.weights[:, 1:][chosen],
        None if batch.sources is None else batch.sources[:, 1:][chosen],
    )


class SFTModule(AdapterModule):
    """Cross entropy on the supervised tokens."""

    rows_are_items = True

    def item_losses(self, batch: MicroBatch) -> LossParts:
        """Returns the cross entropy of each supervised token; in training with the noise of NEFTune."""
        batch, alpha = self.laid_out(batch), self.config.trainer.neftune_alpha if self.training else 0.0
        with noisy_embeddings(causal_lm(self.model), batch, alpha):
            return token_losses(self.model, batch, self.config.trainer.speed)

    def validation_losses(self, batch: MicroBatch) -> tuple[LossParts, LossParts | None]:
        """Returns the losses of responses, and of prompts where `eval.prompt_loss` asks for them."""
        if self.config.eval.prompt_loss:
            return response_and_prompt_losses(self.model, self.laid_out(batch))
        return self.item_losses(batch), None
