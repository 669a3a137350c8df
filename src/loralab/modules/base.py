"""The training step that every objective shares."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from peft import PeftModel
from torch import Tensor

from loralab.config.schema import TrainConfig
from loralab.data.collate import MicroBatch, StepBatch, without_padding
from loralab.data.plan import StepPlan
from loralab.distributed.group import sum_gradients, sum_numbers, world_size
from loralab.distributed.votes import Votes
from loralab.losses.parts import LossParts, SourceMeans, several
from loralab.metrics import (
    TRAIN_GRAD_NORM,
    TRAIN_LOSS,
    TRAIN_LR,
    VAL_LOSS,
    VAL_PERPLEXITY,
    VAL_PROMPT_LOSS,
    VAL_PROMPT_PERPLEXITY,
    for_source,
    loss_figures,
)
from loralab.model.adapters.offsets import load_offsets, offsets
from loralab.model.adapters.registry import step_hooks
from loralab.model.attention import keeps_documents_apart
from loralab.model.lora import cast_adapter, causal_lm, trainable
from loralab.model.row_paths import cost_of_target, runs_side_by_side, shares_prefix
from loralab.modules.guard import OUT_OF_MEMORY, SKIPPED, Guard, Incident
from loralab.modules.row_threads import RowThreads
from loralab.modules.stepping import Halved, MicroBatchLimit
from loralab.optim.build import build_optimizer
from loralab.optim.groups import set_learning_rate
from loralab.optim.master import MasterWeights
from loralab.optim.scaling import LossScaler
from loralab.optim.schedules import lr_factor

NAN = float("nan")
OFFSETS, SCALER = "offsets", "scaler"
"""Keys of the first values of PiSSA, OLoRA and CorDA, and of the loss scaling, in the method's state."""


class AdapterModule(pl.LightningModule):
    """Trains an adapter one whole optimizer step at a time.

    A step's loss is the weighted sum over its supervised tokens divided by their weights, summed before
    the first backward, so that one batch of 8 and four accumulated batches of 2 give the same update. An
    objective says only what a micro-batch costs.
    """

    rows_are_items: ClassVar[bool] = False
    """Whether each row has a loss of its own, so that rows may run side by side."""

    def __init__(
        self,
        model: PeftModel,
        plan: StepPlan,
        config: TrainConfig,
        dtype: torch.dtype,
        source_names: Sequence[str] = ("data",),
        num_train_sources: int = 1,
    ) -> None:
        """Takes an adapted model; its trainable parameters move to `dtype`, with float32 masters.

        Args:
            model: The adapted model.
            plan: The order of the run.
            config: Optimizer, schedule and clipping.
            dtype: Compute dtype of the adapter.
            source_names: Name of each source that the examples count in, those of training first.
            num_train_sources: How many of them are trained on.
        """
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.plan = plan
        assert config.optim.lr is not None, "TrainConfig fills it in"
        self.config = config
        self.peak_lr = config.optim.lr
        self.padding_free = config.trainer.speed.padding_free and keeps_documents_apart(causal_lm(model))
        """Whether padded rows go through the model end to end, without their padding."""
        self.shares_prefix = [shares_prefix(causal_lm(model), config, each) for each in (False, True)]
        """Whether what rows begin with goes through the model once: in evaluation, and in training."""
        device_type = next(model.parameters()).device.type
        may_run = runs_side_by_side(causal_lm(model), config, device_type)
        self.row_threads = RowThreads(self.rows_are_items and may_run, cost_of_target(causal_lm(model)))
        self.masters = MasterWeights(trainable(model), dtype)
        # What the adapter holds besides them, such as fixed random projections.
        cast_adapter(model, dtype)
        self.scaler = LossScaler(dtype)
        self.step_hooks = step_hooks(model, self.masters.masters)
        self.guard = Guard(config.callbacks.stability)
        self.limit = MicroBatchLimit()
        self.votes = Votes()
        self.incidents: list[Incident] = []
        """What was done about the last step."""
        self.finished_steps = 0
        self.val_loss = NAN
        self.val_prompt_loss = NAN
        self.val_loss_by_source: dict[str, float] = {}
        self.val_prompt_loss_by_source: dict[str, float] = {}
        self.source_names = list(source_names)
        self.train_names = self.source_names[:num_train_sources]
        self._train_means = SourceMeans(num_train_sources)
        self._val_means = SourceMeans(len(self.source_names))
        self._prompt_means = SourceMeans(len(self.source_names))

    def item_losses(self, batch: MicroBatch) -> LossParts:
        """Returns the loss of each item of a micro-batch: of tokens, or of pairs."""
        raise NotImplementedError

    def laid_out(self, batch: MicroBatch) -> MicroBatch:
        """Returns the rows as the model sees them."""
        batch = self._with_own_prefixes(batch)
        return without_padding(batch) if self.padding_free else batch

    def _with_own_prefixes(self, batch: MicroBatch) -> MicroBatch:
        """Forgets what examples have in common where each is to have a beginning of its own."""
        return batch if self.shares_prefix[self.training] else batch._replace(shared_prefix=0)

    def shares(self, batch: MicroBatch) -> list[MicroBatch]:
        """Returns what may run side by side of a micro-batch."""
        is_laid = batch.lengths is None or self.padding_free
        return self.row_threads.shares(self._with_own_prefixes(batch)) if is_laid else [batch]

    def batch_losses(self, batch: MicroBatch) -> LossParts:
        """Returns the loss of each item of a micro-batch, found in the fastest way."""
        shares = self.shares(batch)
        if len(shares) == 1:
            return self.item_losses(batch)
        return self.row_threads.losses(self.item_losses, shares, list(trainable(self.model).values()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the optimizer over the float32 masters."""
        optimizer = build_optimizer(self.masters.masters, self.config.optim, self.peak_lr)
        self.masters.follow(optimizer)
        return optimizer

    def training_step(self, batch: StepBatch, batch_idx: int) -> dict[str, Any]:
        """Takes one optimizer step and returns its metrics, still on the device."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        scheduled = lr_factor(batch.step, self.plan.total_steps, self.config.schedule)
        lr = self.peak_lr * scheduled * self.guard.lr_factor(batch.step)
        set_learning_rate(optimizer.param_groups, lr)
        loss, halved = self.limit.run(batch.micro_batches, partial(self._gather, batch), self._drop_gathered)
        did_not_fit = [str(each) for each in halved]
        if world_size() > 1:
            loss, did_not_fit = self._add_up(loss, halved)
        is_finite = self.scaler.unscale(self.masters.parameters())
        self.step_hooks.after_backward()
        max_norm = self.config.trainer.grad_clip or float("inf")
        grad_norm = torch.nn.utils.clip_grad_norm_(self.masters.parameters(), max_norm)
        self.incidents = [Incident(OUT_OF_MEMORY, batch.step + 1, cause) for cause in did_not_fit]
        if is_taken := is_finite and self._admits(batch.step, loss, grad_norm):
            optimizer.step()
        self.step_hooks.after_optimizer_step(batch.step + 1, is_taken)
        optimizer.zero_grad()
        self.masters.publish()
        self.finished_steps = batch.step + 1
        return {
            TRAIN_LOSS: loss, TRAIN_GRAD_NORM: grad_norm, TRAIN_LR: lr,
            **self.scaler.figures(), **self._train_loss_by_source(),
        }  # fmt: skip

    def _gather(self, batch: StepBatch, micro_batch: MicroBatch) -> Tensor:
        """Adds the gradients of a micro-batch to those of its step and returns its share of the loss."""
        parts = self.batch_losses(micro_batch)
        loss = parts.weighted().sum() / batch.loss_weight
        self.manual_backward(self.scaler.scale(loss))
        self._train_means.update(parts)
        return loss.detach()

    def _add_up(self, loss: Tensor, halved: Sequence[Halved]) -> tuple[Tensor, list[str]]:
        """Adds up over all processes what each has gathered of the step.

        The numbers go first: they say which parameters any process has a gradient for.

        Returns:
            The loss of all of it, and what did not fit in any of them.
        """
        masters, means = self.masters.parameters(), self._train_means
        has_gradient = torch.tensor([master.grad is not None for master in masters], dtype=torch.float64)
        own = [
            loss.double()[None].cpu(),
            means.sums.cpu(),
            means.weights.cpu(),
            self.votes.cast(),
            has_gradient,
            self.limit.report(halved),
        ]
        sizes = [len(part) for part in own]
        total, sums, weights, votes, counts, reports = sum_numbers(torch.cat(own)).split(sizes)
        means.sums.copy_(sums)
        means.weights.copy_(weights)
        self.votes.count(votes)
        gradients = []
        for master, count in zip(masters, counts.tolist(), strict=True):
            if count:
                master.grad = torch.zeros_like(master) if master.grad is None else master.grad
                gradients.append(master.grad)
        sum_gradients(gradients)
        return cast(Tensor, total[0].to(loss)), self.limit.share(reports)

    def _drop_gathered(self) -> None:
        """Forgets the gradients and losses of a step that starts anew."""
        for parameter in (*self.masters.parameters(), *self.masters.model_parameters.values()):
            parameter.grad = None
        self._train_means.reset()

    def _admits(self, step: int, loss: Tensor, grad_norm: Tensor) -> bool:
        """Lets the guard look at a step; the gradients of one that it leaves out are set to zero.

        The decision must come before the optimizer, so it fetches two numbers from the device, together.
        """
        if not self.guard.config.enabled:
            return True
        self.incidents += self.guard.judge(step, *torch.stack([loss, grad_norm.to(loss)]).tolist())
        if all(incident.kind != SKIPPED for incident in self.incidents):
            return True
        torch._foreach_zero_([each.grad for each in self.masters.parameters() if each.grad is not None])
        return False

    def method_state(self) -> dict[str, Any]:
        """Returns what the adapter's method needs besides weights to go on where it was."""
        state = {OFFSETS: offsets(self.model), SCALER: self.scaler.state_dict()}
        return {**self.step_hooks.state_dict(), **state}

    def load_method_state(self, state: Mapping[str, Any]) -> None:
        """Takes the method's state back.

        Raises:
            ModelError: It is that of another adapter.
        """
        load_offsets(self.model, state.get(OFFSETS, {}))
        self.scaler.load_state_dict(state.get(SCALER, {}))
        self.step_hooks.load_state_dict(state)

    def on_validation_start(self) -> None:
        """Puts the average into the model where the optimizer keeps one: that is validated and saved."""
        self.masters.publish_average()

    def on_validation_end(self) -> None:
        """Goes on where training was; callbacks have run by now."""
        self.masters.publish()

    def validation_step(self, batch: MicroBatch, batch_idx: int) -> None:
        """Adds a batch to the validation loss, and to that of the prompts where it is asked for."""
        tasks = [partial(self.validation_losses, share) for share in self.shares(batch)]
        for learned, prompt in self.row_threads.run(tasks):
            self._val_means.update(learned)
            if prompt is not None:
                self._prompt_means.update(prompt)

    def validation_losses(self, batch: MicroBatch) -> tuple[LossParts, LossParts | None]:
        """Returns the losses of what is learned, and of prompts where the objective tells them apart."""
        return self.item_losses(batch), None

    def on_validation_epoch_end(self) -> None:
        """Keeps the mean loss over the tokens of the split, those of each source, and the same of prompts."""
        self.val_loss, self.val_loss_by_source = self._finish(self._val_means)
        self.val_prompt_loss, self.val_prompt_loss_by_source = self._finish(self._prompt_means)
        self.votes.hold()

    def _finish(self, means: SourceMeans) -> tuple[float, dict[str, float]]:
        """Adds up over all processes and starts anew; returns the mean, and that of each source by name.

        Not a number where nothing was counted, which is the same in all processes.
        """
        if not means.update_called:
            return NAN, {}
        numbers = sum_numbers(torch.cat([means.sums, means.weights]))
        means.sums, means.weights = numbers.to(means.sums.device).chunk(2)
        mean, *by_source = means.compute().tolist()
        means.reset()
        named = zip(self.source_names, by_source, strict=True)
        return mean, several({name: loss for name, loss in named if not math.isnan(loss)})

    def validation_figures(self) -> dict[str, float]:
        """Names what the last validation found for the metrics."""
        figures = loss_figures(VAL_LOSS, VAL_PERPLEXITY, self.val_loss, self.val_loss_by_source)
        if not math.isnan(self.val_prompt_loss):
            by_source = self.val_prompt_loss_by_source
            figures |= loss_figures(VAL_PROMPT_LOSS, VAL_PROMPT_PERPLEXITY, self.val_prompt_loss, by_source)
        return figures

    def _train_loss_by_source(self) -> dict[str, Tensor]:
        means = self._train_means.compute()[1:]
        self._train_means.reset()
        named = zip(self.train_names, means, strict=True)
        return several({for_source(TRAIN_LOSS, name): loss for name, loss in named})
