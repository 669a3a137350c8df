"""How a tokenizer gets its chat template, and which it is refused."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from loralab.data.records import Message
from loralab.data.templating import BUNDLED, apply_template, set_chat_template
from loralab.errors import ModelError

Build = Callable[..., PreTrainedTokenizerBase]
NAMES = "chatml, qwen2_5, qwen3, llama2, llama3, mistral, gemma, phi3, phi4, zephyr, vicuna, alpaca, deepseek"


def refusal(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    with pytest.raises(ModelError) as error:
        set_chat_template(tokenizer, template)
    return str(error.value)


def test_file_is_read(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    changed = copy.deepcopy(tokenizer)
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0]['content'] }}")
    set_chat_template(changed, str(path))
    assert apply_template(changed, (Message("user", "hello"),), generation_prompt=False) == "hello"


@pytest.mark.parametrize("text", ["{{ 'inline' }}", "{% if true %}inline{% endif %}"])
def test_jinja_text_is_taken_as_it_is(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    changed = copy.deepcopy(tokenizer)
    set_chat_template(changed, text)
    assert changed.chat_template == text
    assert apply_template(changed, (Message("user", "a"),), generation_prompt=False) == "inline"


def test_none_keeps_the_tokenizer_s_own(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ 'own' }}"
    set_chat_template(changed, None)
    assert changed.chat_template == "{{ 'own' }}"


def test_bundled_template_replaces_the_tokenizer_s_own(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ 'own' }}"
    set_chat_template(changed, "chatml")
    turns = (Message("user", "a"),)
    assert apply_template(changed, turns, generation_prompt=False) == "<|im_start|>user\na<|im_end|>\n"


def test_missing_file_is_named_with_the_bundled_templates(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    path = str(tmp_path / "absent.jinja")
    changed = copy.deepcopy(tokenizer)
    assert refusal(changed, path) == f"data.chat_template={path!r} is neither a file nor one of: {NAMES}."
    assert changed.chat_template == tokenizer.chat_template


def test_close_name_is_suggested(tokenizer: PreTrainedTokenizerBase) -> None:
    assert refusal(copy.deepcopy(tokenizer), "lama3").endswith(" Did you mean 'llama3'?")


def test_text_that_is_no_jinja_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    changed = copy.deepcopy(tokenizer)
    assert refusal(changed, "{% if %}").startswith("data.chat_template is not a valid Jinja template: ")
    path = tmp_path / "broken.jinja"
    path.write_text("{{ messages")
    assert refusal(changed, str(path)).startswith(
        f"data.chat_template='{path}' is not a valid Jinja template"
    )
    path.write_bytes(b"\xff\xfe{{")
    assert refusal(changed, str(path)).startswith(f"data.chat_template='{path}' cannot be read: ")
    assert changed.chat_template == tokenizer.chat_template


def test_tokenizer_without_template_is_refused_with_the_fix(tokenizer: PreTrainedTokenizerBase) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = None
    assert refusal(changed, None) == (
        "the tokenizer has no chat template. Use an instruct model, or data.chat_template=chatml, "
        "or data.chat_template=FILE with a Jinja template."
    )


def test_template_whose_tokens_the_tokenizer_lacks_is_refused(bare_tokenizer: Build) -> None:
    llama = bare_tokenizer("<s>", "</s>", ("<|start_header_id|>",))
    assert refusal(llama, "llama3") == (
        "data.chat_template='llama3' needs <|end_header_id|>, <|eot_id|>, which the tokenizer does not have: "
        "cut into pieces, the model would not learn where a turn ends. Templates that fit the tokenizer: "
        "llama2, zephyr, vicuna, alpaca."
    )
    assert llama.chat_template is None


def test_chatml_is_refused_without_its_end_token(bare_tokenizer: Build) -> None:
    assert refusal(bare_tokenizer("<s>", "</s>", ("<|im_start|>",)), "chatml").startswith(
        "data.chat_template='chatml' needs <|im_end|>, which the tokenizer does not have"
    )


def test_tokenizer_without_any_end_has_no_template_that_fits(bare_tokenizer: Build) -> None:
    mute = bare_tokenizer("<s>", "</s>", ())
    mute.eos_token = None
    assert refusal(mute, "alpaca") == (
        "data.chat_template='alpaca' needs eos_token, which the tokenizer does not have: cut into pieces, "
        "the model would not learn where a turn ends. Templates that fit the tokenizer: none."
    )


def test_marker_that_is_an_added_but_no_special_token_counts(bare_tokenizer: Build) -> None:
    changed = bare_tokenizer("<s>", "</s>", ())
    changed.add_tokens(list(BUNDLED["deepseek"][:2]))
    set_chat_template(changed, "deepseek")
    assert "DeepSeek" in changed.chat_template


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "llama2", "zephyr"])
def test_templates_of_plain_words_need_only_an_end_of_sequence(bare_tokenizer: Build, name: str) -> None:
    changed = bare_tokenizer("", "<|endoftext|>", ())
    set_chat_template(changed, name)
    turns = (Message("user", "a"), Message("assistant", "b"))
    assert "<|endoftext|>" in apply_template(changed, turns, generation_prompt=False)


def test_bundled_names_are_the_published_ones() -> None:
    assert ", ".join(BUNDLED) == NAMES
