"""The groups that say which model trains and how: `model`, `quant` and `lora`."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

EMBEDDED_MODEL = "smollm2_135m"


@dataclass
class ModelConfig:
    """The base model."""

    name: str = EMBEDDED_MODEL
    """Short name used in run ids and tables."""
    path: str | None = None
    """A folder, a GGUF file or a Hub name; null takes the embedded SmolLM2-135M-Instruct."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; null for all others."""
    attention: str = "auto"
    """Attention implementation of transformers: sdpa, eager, flash_attention_2 (GPU only), or auto."""
    added_tokens: list[str] = field(default_factory=list)
    """Tokens to add to the vocabulary; their embedding rows are trained and saved with the adapter."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """The model's own `config.json` in short: `model_type` and its sizes. With it `loralab plan`
    knows the model without reaching the Hub; a run, also with `dry_run=true`, reads the model's own file."""
    trust_remote_code: bool = False
    """Whether code that comes with a Hub model may run."""

    def __post_init__(self) -> None:
        """Names a model of the user's own after its folder, not after the preset that it replaces."""
        if self.path is not None and self.name == EMBEDDED_MODEL:
            self.name = PurePath(self.path).name


@dataclass
class QuantConfig:
    """How the frozen base weights are stored."""

    name: str = "nf4"
    """nf4: 4-bit NormalFloat (QLoRA, arXiv:2305.14314 section 3); fp4: 4-bit float; int8: LLM.int8()
    (arXiv:2208.07339); none: no quantization."""
    double_quant: bool = True
    """Quantize the constants of nf4 and fp4 too (arXiv:2305.14314 section 3, double quantization)."""
    compute_dtype: str | None = None
    """What nf4 and fp4 are multiplied in: bf16, fp16 or fp32; null is the compute dtype of the run."""
    storage_dtype: str = "uint8"
    """What nf4 and fp4 are packed into: uint8, or for FSDP, which shards one dtype, bf16, fp16 or fp32."""
    skip_modules: list[str] = field(default_factory=list)
    """Linear layers to leave unquantized besides the output head: ends of their names, or of the names of
    modules around them, such as `layers.0.mlp`."""
    int8_threshold: float = 6.0
    """int8 on a GPU multiplies input features above this in 16 bits (arXiv:2208.07339, section 3.2); 0: none.
    A CPU multiplies all of them in the compute dtype."""


@dataclass
class LoraConfig:
    """The adapter: LoRA (arXiv:2106.09685) and its relatives."""

    method: str = "lora"
    """lora, adalora, vera, ia3, prefix, prompt or ptuning."""
    auto: bool = False
    """Propose r and alpha from the rows, the model's width and free memory, and print why."""
    r: int = 16
    """Rank of the update; 1 to 1024. AdaLoRA: the average rank that is left at the end."""
    alpha: float | None = None
    """The update is scaled by alpha / r (arXiv:2106.09685 section 4.1); null means 2 r."""
    dropout: float = 0.0
    """Probability of zeroing an input feature of the adapter; 0 to below 1."""
    targets: Any = "auto"
    """Layers to adapt: auto (by architecture), attention, mlp, all_linear (all but the output head), a list
    of module names, or a regular expression over whole module names."""
    bias: str = "none"
    """Biases of the base that train too: none, all, or lora_only (those of adapted layers)."""
    rslora: bool = False
    """Scale by alpha / sqrt(r) instead (arXiv:2312.03732)."""
    dora: bool = False
    """Learn the magnitude of the weight's columns apart from their direction (arXiv:2402.09353)."""
    init: str = "default"
    """How A and B start: default (A random, B zero), gaussian, orthogonal, pissa (arXiv:2404.02948), olora
    (arXiv:2406.01775), loftq (arXiv:2310.08659), eva (arXiv:2410.07170) or corda (arXiv:2406.05223)."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Rank of single layers: the end of a module name, or a regular expression, to its rank."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """Alpha of single layers, named as in `rank_pattern`."""
    layers: list[int] | None = None
    """Decoder layers to adapt, counted from 0; null adapts all."""
    modules_to_save: list[str] = field(default_factory=list)
    """Modules that train whole and are saved with the adapter, such as lm_head."""
    trainable_tokens: list[str] = field(default_factory=list)
    """Tokens whose embedding rows train, and nothing else of the embedding."""
    initial_rank: int | None = None
    """AdaLoRA starts with this rank and prunes to r (arXiv:2303.10512); null starts with 1.5 r."""
    virtual_tokens: int = 20
    """Learned tokens of prefix, prompt and ptuning; 1 to 1000."""
    prompt_text: str | None = None
    """Text whose embeddings the tokens of prompt tuning start from; null starts at random."""

    def __post_init__(self) -> None:
        """Fills in alpha where it is null; a rank that is out of range is one fault, not two."""
        if self.alpha is None and self.r > 0:
            self.alpha = 2.0 * self.r
