"""Embedding rows of single tokens that train with an adapter."""

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.context import AdapterContext


def trainable_rows(
    model: PreTrainedModel, lora: LoraConfig, context: AdapterContext, saved: list[str]
) -> dict[str, list[int]] | None:
    """Returns PEFT's `trainable_token_indices`: rows by the name of the embeddings and of an untied head.

    A tied head shares its rows with the embeddings, and PEFT keeps it so.

    Args:
        model: The base model.
        lora: `trainable_tokens`.
        context: The tokenizer, and the ids of added tokens, whose rows train too.
        saved: Whole names of modules that train whole; their rows need nothing more.

    Raises:
        ConfigError: A text is no single token, or the head has a bias, which PEFT's rows leave out.
    """
    ids = sorted({*context.added_token_ids, *token_ids(lora.trainable_tokens, context.tokenizer)})
    if not ids:
        return None
    places = [_name_of(model, model.get_input_embeddings())]
    head = model.get_output_embeddings()
    if head is not None and not is_tied(model):
        if getattr(head, "bias", None) is not None:
            raise ConfigError(
                f"the output head of {type(model).__name__} has a bias, which PEFT leaves out where single "
                f"rows train. Train both whole: lora.modules_to_save=[{places[0]},{_name_of(model, head)}]."
            )
        places.append(_name_of(model, head))
    rows = {place: ids for place in places if place not in saved}
    return rows or None


def token_ids(texts: list[str], tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Returns the ids of tokens given as they are written in the vocabulary, or as text.

    Raises:
        ConfigError: A text is not one token, or there is no tokenizer to ask.
    """
    if texts and tokenizer is None:
        raise ConfigError("lora.trainable_tokens needs the model's tokenizer, which is not loaded here.")
    found: list[int] = []
    for text in texts:
        assert tokenizer is not None
        vocabulary = tokenizer.get_vocab()
        ids = [vocabulary[text]] if text in vocabulary else tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ConfigError(
                f"lora.trainable_tokens: {text!r} is {len(ids)} tokens: "
                f"{tokenizer.convert_ids_to_tokens(ids)}. Name single tokens, or add it: "
                f"model.added_tokens=[{text}]."
            )
        found += ids
    return found


def is_tied(model: PreTrainedModel) -> bool:
    """Says whether the output head shares its weight with the embeddings."""
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))


def _name_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
    return names[id(wanted)]
