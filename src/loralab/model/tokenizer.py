"""Tokenizers: loading, padding, added tokens, and embeddings that have a row for each token."""

import re
from pathlib import Path
from typing import cast

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.model import ModelConfig
from loralab.errors import ModelError
from loralab.model.location import check_reachable, loading_failed, model_location
from loralab.model.messages import first_line

SPECIAL_FORM = re.compile(r"<\|.+\|>")
"""Added tokens of this form are markup, which decoding for a reader leaves out; others are text."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
"""Files by which a folder has a tokenizer; whole or not."""
NUM_LISTED = 20
"""Tokens that a message spells out."""


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a model, adds `model.added_tokens`, and gives it a padding token.

    An added token of the form `<|...|>` is special: decoding with `skip_special_tokens` drops it. Labels come
    from spans, so a padding token that is the end-of-sequence token hides nothing from the loss.

    Raises:
        ModelError: It cannot be loaded, is not a fast tokenizer, which character spans need, or has no
            token to pad with.
    """
    tokenizer = _load_own(config)
    tokenizer.add_tokens(
        [
            AddedToken(token, special=SPECIAL_FORM.fullmatch(token) is not None, normalized=False)
            for token in dict.fromkeys(config.added_tokens)
        ]
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError(f"{config.name} has no padding, unknown or end-of-sequence token to pad with.")
    return tokenizer


def added_token_ids(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> list[int]:
    """Returns the ids of `model.added_tokens`, ascending: the embedding rows that train with the adapter."""
    vocabulary = tokenizer.get_vocab()
    return sorted({vocabulary[token] for token in config.added_tokens})


def check_vocabulary(
    tokenizer: PreTrainedTokenizerBase, model_config: PreTrainedConfig, config: ModelConfig
) -> None:
    """Refuses a tokenizer that has tokens without an embedding row, unless they are to be added.

    Raises:
        ModelError: Lists them and the setting that adds their rows.
    """
    num_rows = int(model_config.get_text_config().vocab_size)
    by_id = sorted(
        (token_id, token) for token, token_id in tokenizer.get_vocab().items() if token_id >= num_rows
    )
    extra = [token for _, token in by_id if token not in config.added_tokens]
    if not extra:
        return
    listed = ", ".join(extra[:NUM_LISTED]) + (
        f" and {len(extra) - NUM_LISTED} more" if len(extra) > NUM_LISTED else ""
    )
    wanted = [*config.added_tokens, *extra]
    fix = f"Add rows for them, which then train: model.added_tokens={_as_override(wanted)}."
    if len(wanted) > NUM_LISTED:
        fix = (
            "So many mean another model's tokenizer: give the one that belongs to the weights, or list all "
            "of them in model.added_tokens, whose rows then train."
        )
    raise ModelError(
        f"the tokenizer of model={config.name} has {len(extra)} tokens more than the {num_rows:,} rows of "
        f"the embeddings: {listed}. {fix}"
    )


def resize_for(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    """Gives each added token a row in the embeddings and the output head, before any adapter is attached.

    New rows start as the mean of those of the model's own tokens, so that they begin as likely as an average
    token, and the same in every process (Hewitt, "Initializing New Word Embeddings for Pretrained Language
    Models", 2021). Rows that lay unused, because the model rounds its vocabulary up, start so too. A saved
    adapter brings its own rows; it needs this before it loads.

    Raises:
        ModelError: The output head is quantized, so that it cannot take more rows.
    """
    if not config.added_tokens:
        return
    own_ids = set(_load_own(config).get_vocab().values())
    num_rows = cast(Tensor, model.get_input_embeddings().weight).shape[0]
    fresh = [
        token_id
        for token_id in added_token_ids(tokenizer, config)
        if token_id not in own_ids or token_id >= num_rows
    ]
    if not fresh:
        return
    _refuse_quantized(model, config)
    if (needed := max(fresh) + 1) > num_rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    num_own = min(num_rows, max(own_ids) + 1)
    rows = torch.tensor(sorted({*fresh, *range(num_rows, needed)}))
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tensors = [embeddings.weight]
    if head is not None:
        tensors += [] if head.weight is embeddings.weight else [head.weight]
        tensors += [] if getattr(head, "bias", None) is None else [head.bias]
    for tensor in tensors:
        _set_to_mean(cast(Tensor, tensor), rows, num_own)


def _load_own(config: ModelConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer as it comes with the model."""
    location = model_location(config)
    check_reachable(config, location)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            location, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        is_config = isinstance(error, StrictDataclassError) or "trust_remote_code" in str(error)
        if Path(location).is_dir() and not is_config:
            raise ModelError(_no_tokenizer(Path(location), error)) from error
        raise ModelError(loading_failed(config, location, error)) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{location} has no fast tokenizer (tokenizer.json), which label spans need.")
    return tokenizer


def _no_tokenizer(folder: Path, error: Exception) -> str:
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return (
            f"{folder} holds no tokenizer ({' or '.join(TOKENIZER_FILES)}). Copy tokenizer.json and "
            "tokenizer_config.json of this model into it."
        )
    reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error).rstrip(".")
    return f"the tokenizer in {folder} cannot be read: {reason}. Get its files again."


@torch.no_grad()
def _set_to_mean(weight: Tensor, rows: Tensor, num_own: int) -> None:
    """Sets rows of [rows, width] or [rows] to the mean of the first `num_own`, taken in float32."""
    mean = weight[:num_own].float().mean(dim=0)
    weight[rows.to(weight.device)] = mean.to(weight.dtype)


def _refuse_quantized(model: PreTrainedModel, config: ModelConfig) -> None:
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = getattr(module, "weight", None)
        if module is not None and (not isinstance(weight, nn.Parameter) or not weight.is_floating_point()):
            raise ModelError(
                f"model.added_tokens: the embeddings or the output head of model={config.name} are "
                "quantized, so they take no more rows. Use the unquantized model, or model.added_tokens=[]."
            )


def _as_override(tokens: list[str]) -> str:
    """Writes a list as Hydra reads it on a command line."""
    quoted = ",".join('"' + token.replace("\\", "\\\\").replace('"', '\\"') + '"' for token in tokens)
    return f"'[{quoted}]'"
