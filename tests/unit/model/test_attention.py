from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from loralab.data.collate import MicroBatch
from loralab.data.packing import document_bounds, document_positions
from loralab.errors import ModelError
from loralab.model import attention, attention_choice, varlen_attention
from loralab.model.attention import (
    BLOCK_ATTENTION,
    DOCUMENT_ATTENTION,
    allow_padding_free,
    document_arguments,
    document_attention,
    enable_document_attention,
    keeps_documents_apart,
)
from loralab.model.attention_choice import runs_without_padding
from loralab.model.head import hidden_states

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.2,
}  # fmt: skip
SLIDING_FIRST = ["sliding_attention", "full_attention"]
PRESETS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "attn_logit_softcapping": 2.0, "layer_types": SLIDING_FIRST},
    "gemma3_text": {"sliding_window": 4, "layer_types": SLIDING_FIRST},
    "phi3": {"sliding_window": 5},
    "gpt_neox": {},
    "opt": {"dropout": 0.0, "init_std": 0.2},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    # Sliding windows that are in the config and the mask, and not among what the layer passes on.
    "qwen2_moe": {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 2,
                  "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4},
    "phimoe": {"sliding_window": 4, "num_local_experts": 4},
    # Sinks.
    "gpt_oss": {"sliding_window": 4, "num_local_experts": 4, "layer_types": SLIDING_FIRST,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
}  # fmt: skip
ROWS = [[5, 9, 1], [6, 7]]
WIDTH = 17
"""Padding of 2 and 4 tokens closes the rows."""


def build(name: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[name](**{**SMALL, **PRESETS.get(name, {}), **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def random_documents() -> list[list[Tensor]]:
    torch.manual_seed(1)
    return [[torch.randint(3, 97, (length,)) for length in row] for row in ROWS]


def pack(documents: Sequence[Sequence[Tensor]]) -> Tensor:
    ids = torch.zeros(len(documents), WIDTH, dtype=torch.long)
    for row, members in enumerate(documents):
        joined = torch.cat(list(members))
        ids[row, : len(joined)] = joined
    return ids


def run_packed(model: PreTrainedModel, documents: Sequence[Sequence[Tensor]]) -> Tensor:
    bounds = document_bounds([[len(document) for document in row] for row in documents], WIDTH)
    positions = torch.from_numpy(document_positions(bounds)).view(-1, WIDTH)
    arguments = document_arguments(model, bounds, torch.device("cpu"))
    return model.base_model(
        input_ids=pack(documents), position_ids=positions, use_cache=False, **arguments
    ).last_hidden_state


def unpack(hidden: Tensor, documents: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [
        part
        for row, members in zip(hidden, documents, strict=True)
        for part in row.split([*(len(each) for each in members), WIDTH - sum(len(each) for each in members)])[
            :-1
        ]
    ]


def run_alone(model: PreTrainedModel, documents: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [
        model.base_model(input_ids=document[None], use_cache=False).last_hidden_state[0]
        for row in documents
        for document in row
    ]


def weighted_sum(outputs: Sequence[Tensor]) -> Tensor:
    """A scalar to which every number contributes in its own way."""
    return sum(
        (output * torch.arange(1.0, output.numel() + 1).view_as(output).cos()).sum() for output in outputs
    )


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    return found


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        # Float32 sums of some hundred terms in another order.
        bound = 1e-5 * max(1.0, float(gradient.abs().max()))
        assert float((actual[name] - gradient).abs().max()) <= bound, name


@pytest.mark.parametrize("name", PRESETS)
def test_packed_documents_equal_documents_alone(name: str) -> None:
    model, documents = build(name), random_documents()
    expected = run_alone(model, documents)
    weighted_sum(expected).backward()
    expected_gradients = gradients(model)
    unseparated = unpack(
        model.base_model(
            input_ids=pack(documents), attention_mask=(pack(documents) > 0).long()
        ).last_hidden_state,
        documents,
    )

    enable_document_attention(model)
    actual = unpack(run_packed(model, documents), documents)
    weighted_sum(actual).backward()

    for packed, alone in zip(actual, expected, strict=True):
        torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model), expected_gradients)
    # What the same row gives without separation, so that this test can fail.
    assert (
        max(float((one - two).detach().abs().max()) for one, two in zip(unseparated, expected, strict=True))
        > 1e-2
    )


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_documents_that_share_their_beginning_equal_whole_ones(
    name: str, in_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tokens are shared, which is less than the windows of 4 and 5; documents are longer than those."""
    monkeypatch.setattr(attention, "_suits_blocks", lambda query, whole, window: window is None)
    model, documents = build(name), random_documents()
    for row in documents:
        for document in row:
            document[:3] = torch.tensor([3, 4, 5])[: len(document)]
    # Alone, a document of one token is no copy of the beginning.
    documents[0].pop()
    enable_document_attention(model, in_blocks)
    bounds = document_bounds([[len(document) for document in row] for row in documents], WIDTH)
    ids, positions = pack(documents), torch.from_numpy(document_positions(bounds)).view(-1, WIDTH)
    batch = MicroBatch(ids, (ids > 0).long(), ids, position_ids=positions, bounds=bounds)
    expected = unpack(hidden_states(model, batch), documents)
    weighted_sum(expected).backward()
    expected_gradients = gradients(model)
    widths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda *args: widths.append(args[2].shape[1]))

    actual = unpack(hidden_states(model, batch._replace(shared_prefix=3)), documents)
    weighted_sum(actual).backward()

    # 2 x 17 tokens, five documents with those of padding; what is left is filled up to a multiple of 16.
    assert widths == [32]
    for shared, alone in zip(actual, expected, strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model), expected_gradients)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_recomputation_sees_the_documents_of_its_own_forward_pass(name: str) -> None:
    model, documents = build(name), random_documents()
    weighted_sum(run_alone(model, documents)).backward()
    expected = gradients(model)
    enable_document_attention(model)
    model.train()
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing

    loss = weighted_sum(unpack(run_packed(model, documents), documents))
    run_packed(model, [row[::-1] for row in documents])
    loss.backward()

    assert_same_gradients(gradients(model), expected)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gemma3_text", "gpt_oss", "opt"])
@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_padded_batches_run_as_before(name: str, side: str) -> None:
    model = build(name)
    torch.manual_seed(2)
    ids = torch.randint(3, 97, (2, 9))
    mask = torch.ones_like(ids)
    if side != "none":
        mask[1, slice(0, 3) if side == "left" else slice(6, 9)] = 0
    before = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]

    enable_document_attention(model)
    after = model(input_ids=ids, attention_mask=mask).logits[mask.bool()]

    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt_oss"])
@pytest.mark.parametrize("padding", [0, 2])
def test_generation_goes_on_as_before(name: str, padding: int) -> None:
    model = build(name)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [15, 16, 11, 12, 13, 14]])
    ids[1, :padding] = 0
    settings = {
        "attention_mask": (ids > 0).long(),
        "max_new_tokens": 8,
        "do_sample": False,
        "min_new_tokens": 8,
    }
    before = model.generate(ids, **settings)

    enable_document_attention(model)

    assert model.generate(ids, **settings).tolist() == before.tolist()


def test_packed_rows_build_no_mask_over_the_whole_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("mistral")
    enable_document_attention(model)

    def build_mask(**_: Any) -> None:
        raise AssertionError("a mask was built")

    monkeypatch.setitem(AttentionMaskInterface._global_mapping, BLOCK_ATTENTION, build_mask)

    with torch.no_grad():
        packed = run_packed(model, random_documents())
    assert packed.isfinite().all()


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bloom", {}, "its attention cannot be replaced"),
        ("falcon", {"head_dim": None}, "its attention cannot be replaced"),
        ("mamba", {}, "carries a state"),
        ("llama4_text", {"num_local_experts": 2, "pad_token_id": 0}, "in chunks"),
        # Drops what it is not told of, and so the documents' bounds.
        ("stablelm", {}, "see each other"),
        # Mixes neighbouring tokens in convolutions.
        ("lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}, "see each other"),
        ("doge", {}, "masks of their own"),
    ],
)
def test_architectures_that_cannot_keep_documents_apart_are_refused(
    name: str, changes: dict[str, Any], reason: str
) -> None:
    config = {key: value for key, value in {**SMALL, **changes}.items() if value is not None}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**config)).train()
    original = model.config._attn_implementation

    with pytest.raises(ModelError, match=reason) as refused:
        enable_document_attention(model)

    assert "packing is not possible with" in str(refused.value)
    assert "Use data.packing=false." in str(refused.value)
    assert model.config._attn_implementation == original
    assert model.training


def test_enabling_leaves_the_model_as_it_was_and_may_be_repeated() -> None:
    model = build("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    enable_document_attention(model)
    enable_document_attention(model)

    assert model.training
    assert model.config._attn_implementation == BLOCK_ATTENTION
    assert BLOCK_ATTENTION not in str(model.config.to_dict())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_weights_can_be_enabled() -> None:
    with torch.device("meta"):
        model = build("llama")

    enable_document_attention(model)

    assert model.config._attn_implementation == BLOCK_ATTENTION


def test_padding_is_left_out_where_documents_are_kept_apart() -> None:
    able, unable = build("llama"), build("llama", attention_chunk_size=4)
    for model in (able, unable):
        allow_padding_free(model, in_blocks=False)
    assert keeps_documents_apart(able)
    assert able.config._attn_implementation == DOCUMENT_ATTENTION
    assert not keeps_documents_apart(unable)
    assert unable.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("device", "has_kernel", "changes", "expected"),
    [
        ("cpu", False, {}, True),
        ("cuda", False, {}, False),
        ("cuda", True, {}, True),
        ("cuda", True, {"head_dim": 512}, False),
    ],
)
def test_a_gpu_without_one_kernel_for_all_documents_pads(
    monkeypatch: pytest.MonkeyPatch, device: str, has_kernel: bool, changes: dict[str, Any], expected: bool
) -> None:
    monkeypatch.setattr(attention_choice, "has_varlen", lambda *_: has_kernel)
    config = CONFIG_MAPPING["llama"](**{**SMALL, **changes})
    assert runs_without_padding(config, torch.device(device), torch.bfloat16) is expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sixteen_bit_models_pass_the_probe(dtype: torch.dtype) -> None:
    model = build("gpt_oss").to(dtype)
    enable_document_attention(model)
    assert model.config._attn_implementation == BLOCK_ATTENTION


def test_flash_attention_gets_the_arguments_that_transformers_documents() -> None:
    model = build("llama")
    model.config._attn_implementation_internal = "flash_attention_2"

    arguments = document_arguments(model, (0, 3, 5, 11), torch.device("cpu"))

    assert arguments["cu_seq_lens_q"].tolist() == arguments["cu_seq_lens_k"].tolist() == [0, 3, 5, 11]
    assert arguments["cu_seq_lens_q"].dtype == torch.int32
    assert arguments["max_length_q"] == arguments["max_length_k"] == 6
    assert arguments["attention_mask"] is None
    assert "document_bounds" not in arguments


@pytest.mark.parametrize(("window", "expected"), [(None, (-1, 0)), (3, (2, 0))])
def test_the_varlen_kernel_gets_flat_tokens_and_bounds(
    monkeypatch: pytest.MonkeyPatch, window: int | None, expected: tuple[int, int]
) -> None:
    """The kernel needs a GPU: a stand-in for it computes what its documentation says."""
    calls: list[dict[str, Any]] = []

    def varlen_attn(query: Tensor, key: Tensor, value: Tensor, *bounds: Any, **kwargs: Any) -> Tensor:
        calls.append({"shapes": [query.shape, key.shape, value.shape], "bounds": bounds, **kwargs})
        place = torch.arange(len(query))
        document = torch.bucketize(place, bounds[0][1:], right=True)
        ago = place[:, None] - place
        left = kwargs["window_size"][0]
        seen = (document[:, None] == document) & (ago >= 0) & (ago <= (left if left >= 0 else len(query)))
        logits = torch.einsum("qhd,khd->hqk", query, key) * kwargs["scale"]
        return torch.einsum("hqk,khd->qhd", logits.masked_fill(~seen, -torch.inf).softmax(-1), value)

    module = torch.nn.Module()
    module.num_key_value_groups = 2
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, heads, 6, 8) for heads in (4, 2, 2))
    bounds = (0, 5, 6, 10, 12)
    arguments = {"document_bounds": bounds, "sliding_window": window, "scaling": 0.3, "max_length_q": 5}
    arguments["cu_seq_lens_q"] = torch.tensor(bounds, dtype=torch.int32)
    each, _ = document_attention(module, query, key, value, None, **arguments)
    monkeypatch.setattr(varlen_attention, "varlen_attn", varlen_attn)
    monkeypatch.setattr(attention, "fits_varlen", lambda *_: True)

    together, _ = document_attention(module, query, key, value, None, **arguments)

    assert together.shape == (2, 6, 4, 8)
    torch.testing.assert_close(together, each)
    (call,) = calls
    assert call["shapes"] == [(12, 4, 8)] * 3
    assert [bound.tolist() for bound in call["bounds"][:2]] == [list(bounds)] * 2
    assert call["bounds"][2:] == (5, 5)
    assert call["window_size"] == expected
