"""Everything that the terminal and the page say about prepared data, gathered once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from loralab.config.data import DataConfig
from loralab.data.layout import Layout
from loralab.data.masking import IGNORE_INDEX, Example
from loralab.data.prepare import PreparedData
from loralab.data.report import DataFile, DataReport
from loralab.data.store import ExampleStore
from loralab.data.templating import special_tokens
from loralab.evaluation.token_view import TokenBox, token_boxes

SHOWN_EXAMPLES = 20
LOOKED_AT = 500
"""Examples of each split whose labels are looked at again, one token at a time."""


@dataclass(frozen=True)
class MaskCheck:
    """What the labels of a split's examples hold."""

    part: str
    """train, val or test."""
    examples: int
    """Examples, all of which the gate has passed."""
    fewest_learned: int
    """Fewest tokens to learn of any example."""
    looked_at: int
    """Examples, from the front, that the next counts are about."""
    endings: dict[str, int]
    """How often each special token is the last that is learned."""
    open_ends: int
    """Examples whose learned part ends in no special token: answers and documents that were cut."""
    one_bos: int
    """Examples that begin with one beginning-of-sequence token."""
    double_bos: int
    """Examples that begin with two."""


@dataclass(frozen=True)
class ShownExample:
    """A training example to look at."""

    place: str
    """Where its row stands."""
    source: str
    """Name of its source."""
    tokens: list[TokenBox]
    """All of its tokens."""

    @property
    def num_learned(self) -> int:
        """Tokens that the loss sees."""
        return sum(token.is_learned for token in self.tokens)


@dataclass(frozen=True)
class MixtureLine:
    """What an epoch takes of one training source."""

    name: str
    """The source."""
    available: int
    """Examples that it holds."""
    taken: int
    """Examples that an epoch takes of it, repeats included."""
    fewest: int
    """How often the epoch sees the example that it sees least."""
    most: int
    """How often it sees the one that it sees most."""
    unused: int
    """Examples that it never sees; every epoch takes the same."""
    learned: int
    """Tokens to learn in what it takes, repeats included."""
    limit: int | None = None
    """`data.max_examples` where it ended the reading of the source."""

    @property
    def label(self) -> str:
        """The source, with how many of its rows were read where not all were."""
        return self.name if self.limit is None else f"{self.name}, first {self.limit:,} rows"


@dataclass(frozen=True)
class Arrangement:
    """How the examples of an epoch fill the rows that the model sees."""

    kind: str
    """examples (one each), packed (rows of `data.max_length`) or grouped (micro-batches of like length)."""
    units: int
    """Rows or groups of an epoch; for `examples` the examples."""
    fill: float
    """Share of the tokens of those rows or groups that hold text; 1 for single examples."""


@dataclass(frozen=True)
class PlanFacts:
    """What a training run would do and take."""

    model: str
    """Model, storage, dtype, device and rank in a line."""
    num_adapter: int
    """Parameters that train."""
    num_parameters: int
    """Parameters of the base and the adapter."""
    total_steps: int
    """Optimizer steps."""
    steps_per_epoch: int
    """Optimizer steps of one pass over the data."""
    epochs: float
    """Passes over the data."""
    validations: int
    """Validations during training."""
    val_interval: int
    """Steps between them."""
    tokens_per_step: float
    """Mean tokens of a step, padding included."""
    padding: float
    """Share of those that is padding; 0 to 1."""
    memory_bytes: dict[str, int]
    """Estimated bytes of each part."""
    memory_note: str
    """What the largest micro-batch is."""
    free_bytes: int
    """Memory that is free now, for each process."""
    time_s: float
    """Estimated seconds of training and validation."""
    flops_per_s: float
    """Measured rate of matrix products."""
    efficiency: float
    """Share of that rate that the time assumes."""
    num_processes: int = 1
    """Processes that train together."""


@dataclass(frozen=True)
class DataFacts:
    """What is known of prepared data, and of the run that would train on it."""

    title: str
    """The run or the files that this is about."""
    report: DataReport
    """What became of every row."""
    files: list[DataFile]
    """Where the rows came from."""
    max_length: int
    """`data.max_length`."""
    checks: list[MaskCheck]
    """What the labels hold, for each split."""
    examples: list[ShownExample]
    """The first training examples."""
    bos_token: str
    """The tokenizer's beginning-of-sequence token; empty where it has none."""
    chat_template: str
    """The template, as Jinja text."""
    config_text: str
    """The config, as YAML."""
    privacy: str = "report"
    """`data.privacy.action`; none looks for nothing."""
    contamination: str = "report"
    """`data.contamination.action`; none looks for nothing."""
    mixture: list[MixtureLine] = field(default_factory=list)
    """What an epoch takes of each training source; empty where it sees every example of one source once."""
    arrangement: Arrangement | None = None
    """How examples fill rows."""
    plan: PlanFacts | None = None
    """What the run would do; None where only data is looked at."""


def gather_facts(
    title: str,
    prepared: tuple[DataConfig, PreparedData],
    tokenizer: PreTrainedTokenizerBase,
    config_text: str,
    layout: Layout | None = None,
    plan: PlanFacts | None = None,
) -> DataFacts:
    """Gathers what is known.

    Args:
        title: The run or the files that this is about.
        prepared: The `data` group and what was prepared from it.
        tokenizer: What made the tokens, with its chat template.
        config_text: The config, as YAML.
        layout: How the examples of an epoch are laid out, where that is known.
        plan: What the run would do, where there is one.
    """
    config, data = prepared
    splits = {"train": data.train, "val": data.val, "test": data.test}
    return DataFacts(
        title=title,
        report=data.report,
        files=data.files,
        max_length=config.max_length,
        checks=[check_masks(part, split.examples, tokenizer) for part, split in splits.items()],
        examples=show_examples(data.train.examples[:SHOWN_EXAMPLES], data.source_names, tokenizer),
        bos_token=str(tokenizer.bos_token or ""),
        chat_template=str(tokenizer.chat_template),
        config_text=config_text,
        privacy=config.privacy.action,
        contamination=config.contamination.action,
        mixture=mixture_lines(data, layout) if layout is not None else [],
        arrangement=arrange(layout) if layout is not None else None,
        plan=plan,
    )


def check_masks(part: str, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> MaskCheck:
    """Counts again, on the examples as training reads them, what the gate has checked."""
    names = {number: token for token, number in special_tokens(tokenizer).items()}
    looked_at = examples[:LOOKED_AT]
    last = [_last_learned(example) for example in looked_at]
    endings = Counter(names[token] for token in last if token in names)
    bos = tokenizer.bos_token_id
    starts = [example.input_ids[:2] for example in looked_at]
    double = sum(bos is not None and ids == [bos, bos] for ids in starts)
    return MaskCheck(
        part=part,
        examples=len(examples),
        fewest_learned=int(_learned(examples).min()) if len(examples) else 0,
        looked_at=len(looked_at),
        endings=dict(endings.most_common()),
        open_ends=len(last) - endings.total(),
        one_bos=sum(bos is not None and ids[:1] == [bos] for ids in starts) - double,
        double_bos=double,
    )


def show_examples(
    examples: Sequence[Example], source_names: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[ShownExample]:
    """Lists examples with their tokens."""
    return [
        ShownExample(
            f"{example.conversation.source} {example.conversation.place}",
            source_names[example.source],
            token_boxes(tokenizer, example),
        )
        for example in examples
    ]


def mixture_lines(data: PreparedData, layout: Layout) -> list[MixtureLine]:
    """Counts what one epoch takes of each training source; empty where it sees every example of one once."""
    examples = data.train.examples
    sources = (
        examples.sources
        if isinstance(examples, ExampleStore)
        else np.array([example.source for example in examples], np.int64)
    )
    seen, learned = np.bincount(layout.mixture, minlength=len(examples)), _learned(examples)
    if len(data.shares) <= 1 and (seen == 1).all():
        return []
    lines, limits = [], {source.name: source.limit for source in data.report.sources}
    for place in range(len(data.shares)):
        own = sources == place
        times = seen[own]
        lines.append(
            MixtureLine(
                name=data.source_names[place],
                available=len(times),
                taken=int(times.sum()),
                fewest=int(times.min(initial=times.max(initial=0))),
                most=int(times.max(initial=0)),
                unused=int((times == 0).sum()),
                learned=int((times * learned[own]).sum()),
                limit=limits.get(data.source_names[place]),
            )
        )
    return lines


def arrange(layout: Layout) -> Arrangement:
    """Says how examples fill rows, from the first epoch."""
    if layout.is_packed:
        return Arrangement("packed", layout.num_units, layout.fill)
    if layout.is_grouped:
        units = [layout.lengths[layout.unit(0, number)] for number in range(layout.num_units)]
        room = sum(len(lengths) * int(lengths.max()) for lengths in units)
        return Arrangement("grouped", len(units), sum(int(lengths.sum()) for lengths in units) / room)
    return Arrangement("examples", layout.num_units, 1.0)


def _learned(examples: Sequence[Example]) -> NDArray[np.int64]:
    if isinstance(examples, ExampleStore):
        return examples.supervised
    return np.array([example.num_supervised for example in examples], np.int64)


def _last_learned(example: Example) -> int | None:
    learned = (label for label in reversed(example.labels) if label != IGNORE_INDEX)
    return next(learned, None)
