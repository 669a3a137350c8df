"""The training step that every objective shares."""

from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from peft import PeftModel
from torch import Tensor
from torchmetrics import SumMetric

from loralab.config.schema import TrainConfig
from loralab.data.collate import MicroBatch, StepBatch
from loralab.data.plan import StepPlan
from loralab.metrics import TRAIN_GRAD_NORM, TRAIN_LOSS, TRAIN_LR
from loralab.model.lora import trainable
from loralab.optim.build import build_optimizer
from loralab.optim.master import MasterWeights
from loralab.optim.schedules import lr_factor


class AdapterModule(pl.LightningModule):
    """Trains an adapter one whole optimizer step at a time.

    A step's loss is the sum over its supervised tokens divided by their number, counted before the
    first backward, so that one batch of 8 and four accumulated batches of 2 give the same update. An
    objective says only what a micro-batch costs.
    """

    def __init__(self, model: PeftModel, plan: StepPlan, config: TrainConfig, dtype: torch.dtype) -> None:
        """Takes an adapted model; its trainable parameters move to `dtype`, with float32 masters."""
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.plan = plan
        assert config.optim.lr is not None, "TrainConfig fills it in"
        self.config = config
        self.peak_lr = config.optim.lr
        self.masters = MasterWeights(trainable(model), dtype)
        self.finished_steps = 0
        self.val_loss = float("nan")
        # The default strategy drops NaN: a diverged model would have a perfect loss.
        self._val_sum = SumMetric(nan_strategy="disable")
        self._val_tokens = SumMetric(nan_strategy="disable")

    def loss_sum(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Returns the summed loss of a micro-batch and the number of tokens it sums over."""
        raise NotImplementedError

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the optimizer over the float32 masters."""
        return build_optimizer(self.masters.parameters(), self.config.optim, self.peak_lr)

    def training_step(self, batch: StepBatch, batch_idx: int) -> dict[str, Any]:
        """Takes one optimizer step and returns its metrics, still on the device."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        lr = self.peak_lr * lr_factor(batch.step, self.plan.total_steps, self.config.schedule)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = torch.zeros((), device=self.device)
        for micro_batch in batch.micro_batches:
            micro_loss = self.loss_sum(micro_batch)[0] / batch.supervised_tokens
            self.manual_backward(micro_loss)
            loss += micro_loss.detach()
        max_norm = self.config.trainer.grad_clip or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.masters.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
        self.masters.publish()
        self.finished_steps = batch.step + 1
        return {TRAIN_LOSS: loss, TRAIN_GRAD_NORM: grad_norm, TRAIN_LR: lr}

    def validation_step(self, batch: MicroBatch, batch_idx: int) -> None:
        """Adds a batch to the validation loss."""
        loss_sum, num_tokens = self.loss_sum(batch)
        self._val_sum.update(loss_sum)
        self._val_tokens.update(num_tokens)

    def on_validation_epoch_end(self) -> None:
        """Keeps the mean loss over the tokens of the split."""
        self.val_loss = float(self._val_sum.compute() / self._val_tokens.compute())
        self._val_sum.reset()
        self._val_tokens.reset()
