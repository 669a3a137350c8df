"""The `data` group: what is read, cleaned, split, rendered and packed."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ColumnsConfig:
    """Names of the fields in the user's rows; null means the form's own name."""

    prompt: str | None = None
    """Field with the user's request."""
    response: str | None = None
    """Field with the answer to learn."""
    system: str | None = None
    """Field with the system prompt."""
    text: str | None = None
    """Field with a plain document."""
    messages: str | None = None
    """Field with a list of turns."""
    chosen: str | None = None
    """Field with the preferred answer or conversation."""
    rejected: str | None = None
    """Field with the answer or conversation that lost."""
    label: str | None = None
    """Field that says whether an answer is good: true or false, 1 or 0."""


@dataclass
class PromptTemplateConfig:
    """Jinja templates that build the turns of a row from any of its fields, such as `{{ title }}`."""

    system: str | None = None
    """Template of the system turn; null leaves it out."""
    user: str | None = None
    """Template of the user turn; null leaves the row to its form."""
    assistant: str | None = None
    """Template of the assistant turn."""


@dataclass
class SourceConfig:
    """One of several sources that a run mixes; null takes the value of the `data` group."""

    path: Any = None
    """A file, folder, glob, list of them, or `hub:owner/name` for a dataset of the Hub."""
    name: str | None = None
    """Name in tables and metrics; null takes the file's name."""
    subset: str | None = None
    """Configuration of a Hub dataset."""
    split: str = "train"
    """Split of a Hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    format: str | None = None
    """Form of the rows."""
    columns: ColumnsConfig | None = None
    """Names of the fields."""
    prompt_template: PromptTemplateConfig | None = None
    """Templates that build the turns."""
    encoding: str | None = None
    """Text encoding of the files."""
    weight: float | None = None
    """Share of the mixture relative to the other weights, drawn once for a run; null takes all."""
    rows: int | None = None
    """Examples of an epoch, drawn once for the run; null follows `weight` and `epochs`."""
    epochs: float = 1.0
    """Times each example is seen in one epoch of the run; above 0."""
    loss_weight: float = 1.0
    """Weight of the tokens of this source in the loss; above 0."""


@dataclass
class QualityConfig:
    """Checks of single rows; a row that fails one is left out and counted. null switches a check off."""

    min_chars: int | None = 1
    """Fewest characters of a user or assistant turn, white space not counted."""
    role_order: bool = True
    """Leave out conversations whose turns do not alternate between user and assistant."""
    min_tokens: int | None = None
    """Fewest tokens of a rendered row."""
    max_tokens: int | None = None
    """Most tokens of a rendered row; unlike `data.max_length` this is a filter, no fault."""
    max_repetition: float | None = None
    """Largest share of an answer's words that repeated 3-grams cover; 0 to 1, 0.8 spares worked sums."""
    max_garble: float | None = 0.1
    """Largest share of replacement, control and private-use characters; 0 to 1."""
    languages: list[str] | None = None
    """ISO 639-1 codes that an answer may be written in; needs the extra `language`."""
    max_prompt_copy: float | None = None
    """Largest share of an answer's 5-grams that stand in its prompt; 0 to 1, 0.9 finds copies."""
    balanced: bool = False
    """Leave out answers with an unclosed code fence, or a fence declared as JSON that does not parse."""
    json_response: bool = False
    """The answers are declared to be JSON: leave out the ones that do not parse."""


@dataclass
class PrivacyConfig:
    """Personal data and secrets in the rows."""

    action: str = "report"
    """none, report (count and keep), mask (replace by a placeholder such as [EMAIL]) or drop."""
    kinds: list[str] = field(default_factory=lambda: ["email", "phone", "card", "iban", "secret"])
    """What to look for."""


@dataclass
class DedupConfig:
    """Duplicates; of each group the first row stays."""

    exact: bool = True
    """Leave out rows whose conversation is the same to the letter, within and across the splits."""
    near: str = "none"
    """none, prompt or conversation: leave out near duplicates by what is compared."""
    threshold: float = 0.8
    """Jaccard similarity of word 5-grams from which two rows are near duplicates; above 0, to 1."""
    num_perm: int = 128
    """MinHash permutations; the estimate's standard error is about 1 / sqrt(num_perm)."""


@dataclass
class BenchmarkConfig:
    """Rows to compare with; where no form is named or found, all text of a row counts."""

    path: Any = None
    """A file, folder, glob, list of them, or `hub:owner/name` for a dataset of the Hub."""
    subset: str | None = None
    """Configuration of a Hub dataset."""
    split: str = "test"
    """Split of a Hub dataset."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    format: str = "auto"
    """Form of the rows."""
    columns: ColumnsConfig | None = None
    """Names of the fields."""
    encoding: str = "utf-8"
    """Text encoding of the files."""


@dataclass
class ContaminationConfig:
    """Overlap of training rows with validation, test and benchmark rows."""

    action: str = "report"
    """none, report (count and keep) or drop the training rows."""
    ngram: int = 13
    """Words in a row that must agree (arXiv:2005.14165, appendix C); 5 or more."""
    near: float | None = None
    """MinHash Jaccard similarity that also counts as overlap; above 0, to 1."""
    benchmarks: list[Any] = field(default_factory=list)
    """Rows that must not be trained on: files, folders, globs, `hub:owner/name`, or groups with the keys of
    `BenchmarkConfig`."""


@dataclass
class SplitConfig:
    """How validation and test rows are held out where no files are given for them."""

    method: str = "random"
    """random, stratified, grouped, temporal or hash."""
    by: str | None = None
    """Field of the rows: stratum, group or time. Also `source` or `length` (stratified), `near` (grouped)."""


@dataclass
class DataConfig:
    """Where the examples come from and how they become tokens."""

    name: str = "calls"
    """calls: the embedded task; file: your own rows at `data.path` or `data.sources`."""
    path: Any = None
    """Training rows: a file, folder, glob, list of them, or `hub:owner/name`."""
    sources: list[Any] = field(default_factory=list)
    """Several sources of training rows, mixed, each with the keys of `SourceConfig`; instead of `path`."""
    val_path: Any = None
    """Validation rows; null holds out `val_fraction` of the training rows."""
    test_path: Any = None
    """Test rows; null holds out `test_fraction` of the training rows."""
    val_fraction: float = 0.05
    """Share of the training rows held out for validation; above 0, below 0.5."""
    test_fraction: float = 0.05
    """Share of the training rows held out for the final test; above 0, below 0.5."""
    max_examples: int | None = None
    """Rows taken from the front of each training source; null takes all."""
    format: str = "auto"
    """auto, or a form: alpaca, sharegpt, openai, prompt_completion, question_answer, prompts, text,
    preference, sharegpt_preference, unpaired."""
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    """Names of the fields in the user's rows."""
    prompt_template: PromptTemplateConfig = field(default_factory=PromptTemplateConfig)
    """Templates that build the turns from any fields."""
    encoding: str = "utf-8"
    """Text encoding of the files; UTF-8 with or without a byte-order mark unless named."""
    on_error: str = "raise"
    """raise: stop at rows that cannot be read or converted; skip: leave them out and count them."""
    preference: str | None = None
    """What supervised fine-tuning learns of preference rows: chosen (the preferred answer); null refuses."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    """Checks of single rows."""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    """Personal data and secrets."""
    dedup: DedupConfig = field(default_factory=DedupConfig)
    """Duplicates."""
    contamination: ContaminationConfig = field(default_factory=ContaminationConfig)
    """Overlap with held-out rows and benchmarks."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """How rows are held out."""
    chat_template: str | None = None
    """A bundled template's name, a Jinja file, or Jinja text; null takes the tokenizer's own template."""
    supervise: Any = "assistant"
    """What is learned: assistant (all its turns), last (its last turn), all (every token), or a list of
    assistant turns counted from 1, from the end where negative: [1,-1]."""
    max_length: int = 1024
    """Longest example in tokens; `over_length` says what becomes of longer ones."""
    over_length: str = "drop"
    """drop, raise, cut_response, cut_oldest (turns), cut_prompt, or window (plain text only)."""
    max_dropped: float = 0.05
    """Largest share of a split that may be dropped or cut for its length; more is refused; 0 to 1."""
    packing: bool = False
    """Put several examples into each training row of `max_length` tokens, kept apart by attention."""
    cache: bool = True
    """Keep the prepared examples below the cache folder, for the next run on the same rows and settings."""
    num_workers: int | None = None
    """Processes that prepare rows; null takes the cores, or one for few rows."""
