import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from loralab.config.model import ModelConfig, QuantConfig
from loralab.errors import ModelError
from loralab.model.gguf_file import check_complete, gguf_model_dir
from loralab.model.load import load_base
from loralab.model.location import model_location

HIDDEN, HEADS, FEED, LAYERS = 32, 4, 64, 2
TOKENS = ["<|endoftext|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "oo"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALAB_CACHE", str(tmp_path / "cache"))


def random_weights() -> dict[str, np.ndarray]:
    """Weights of a Llama by their names in GGUF; bfloat16 holds each of them exactly."""
    shapes = {"token_embd": (len(TOKENS), HIDDEN), "output": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,)}
    for layer in range(LAYERS):
        names = ("attn_q", "attn_k", "attn_v", "attn_output")
        shapes |= {f"blk.{layer}.{name}": (HIDDEN, HIDDEN) for name in names}
        shapes |= {f"blk.{layer}.{name}": (FEED, HIDDEN) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{layer}.ffn_down": (HIDDEN, FEED)}
        shapes |= {f"blk.{layer}.{name}": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
    generator = np.random.default_rng(0)
    return {
        f"{name}.weight": generator.integers(-100, 101, shape).astype(np.float32) / 128
        for name, shape in shapes.items()
    }


def write_gguf(path: Path, architecture: str = "llama", num_parts: int = 1, left_out: str = "") -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    if num_parts > 1:
        writer.add_uint16("split.count", num_parts)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(["o o"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, weight in random_weights().items():
        if name != left_out:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def unpermuted(weight: np.ndarray) -> torch.Tensor:
    """Undoes llama.cpp's order of the rows of queries and keys: pairs of a head's halves lie side by side."""
    rows = weight.reshape(HEADS, HIDDEN // HEADS // 2, 2, HIDDEN).swapaxes(1, 2)
    return torch.from_numpy(rows.reshape(HIDDEN, HIDDEN).copy())


def test_a_gguf_file_unpacks_into_the_weights_that_were_written(tmp_path: Path) -> None:
    config = ModelConfig(path=str(write_gguf(tmp_path / "tiny.gguf")))
    model = load_base(config, QuantConfig(name="none"), torch.device("cpu"), torch.float32)
    loaded, written = model.state_dict(), random_weights()
    for ours, theirs in {
        "model.embed_tokens": "token_embd",
        "lm_head": "output",
        "model.norm": "output_norm",
        "model.layers.1.self_attn.v_proj": "blk.1.attn_v",
        "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
        "model.layers.1.input_layernorm": "blk.1.attn_norm",
    }.items():
        assert torch.equal(loaded[f"{ours}.weight"], torch.from_numpy(written[f"{theirs}.weight"])), ours
    for name in ("q", "k"):
        expected = unpermuted(written[f"blk.1.attn_{name}.weight"])
        assert torch.equal(loaded[f"model.layers.1.self_attn.{name}_proj.weight"], expected)


def test_it_brings_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf_model_dir(write_gguf(tmp_path / "tiny.gguf")))
    ids = tokenizer("Hoo!<|im_end|>", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["H", "oo", "!", "<|im_end|>"]
    assert (tokenizer.eos_token, ids[-1]) == ("<|im_end|>", 1)


def test_it_is_unpacked_once_for_its_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = model_location(ModelConfig(path=str(write_gguf(tmp_path / "tiny.gguf"))))
    assert capsys.readouterr().out.startswith(f"Unpacking tiny.gguf once into {first}")
    (tmp_path / "tiny.gguf").rename(tmp_path / "moved.gguf")
    assert model_location(ModelConfig(path=str(tmp_path / "moved.gguf"))) == first
    assert capsys.readouterr().out == ""
    with (tmp_path / "moved.gguf").open("ab") as file:
        file.write(b"more")
    assert model_location(ModelConfig(path=str(tmp_path / "moved.gguf"))) != first


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="architecture 'rwkv6', which transformers cannot unpack"):
        gguf_model_dir(write_gguf(tmp_path / "x.gguf", architecture="rwkv6"))
    assert not list((tmp_path / "cache").glob("gguf/*"))


def test_one_part_of_several_says_how_to_join_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is one of 3 parts of a model. Join them"):
        gguf_model_dir(write_gguf(tmp_path / "x-00001-of-00003.gguf", num_parts=3))


def test_a_missing_tensor_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"lacks weights of the model: model.layers.1.self_attn.v_proj.weight"
    ):
        gguf_model_dir(write_gguf(tmp_path / "x.gguf", left_out="blk.1.attn_v.weight"))


def test_a_file_that_names_no_architecture_is_refused(tmp_path: Path) -> None:
    # The counts of tensors and of metadata, then one metadatum: a name, the type uint32 (4), the value.
    key = b"general.file_type"
    content = struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<II", 4, 0)
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + content)
    with pytest.raises(ModelError, match=r"x.gguf' cannot be read as GGUF: .* no `general.architecture`"):
        gguf_model_dir(tmp_path / "x.gguf")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"GGUF" + struct.pack("<I", 3)])
def test_a_file_that_is_no_gguf_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"x.gguf' cannot be read as GGUF"):
        gguf_model_dir(tmp_path / "x.gguf")


def test_missing_weights_are_counted() -> None:
    check_complete({"missing_keys": set()}, "m")
    with pytest.raises(ModelError, match="m lacks weights of the model: a, b, c and 2 more"):
        check_complete({"missing_keys": set("edcba")}, "m")


def test_a_truncated_file_leaves_nothing_behind(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "x.gguf").read_bytes()
    (tmp_path / "x.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"x.gguf"):
        gguf_model_dir(tmp_path / "x.gguf")
    assert not list((tmp_path / "cache" / "gguf").iterdir())
