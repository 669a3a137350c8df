"""Tiny random models of many families, built from configs alone."""

from collections.abc import Callable

import torch
import transformers as hf
from transformers import PreTrainedConfig, PreTrainedModel

VOCABULARY = 64
LLAMA_LIKE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT_LIKE = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
NO_GROUPS = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}
DEEPSEEK = {
    **LLAMA_LIKE, "num_key_value_heads": 4, "moe_intermediate_size": 16, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
}  # fmt: skip

CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**LLAMA_LIKE),
    "mistral": lambda: hf.MistralConfig(**LLAMA_LIKE),
    "mixtral": lambda: hf.MixtralConfig(**LLAMA_LIKE, num_local_experts=4),
    "qwen2": lambda: hf.Qwen2Config(**LLAMA_LIKE),
    "qwen3": lambda: hf.Qwen3Config(**LLAMA_LIKE, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**LLAMA_LIKE, head_dim=8),
    "gemma3": lambda: hf.Gemma3TextConfig(**LLAMA_LIKE, head_dim=8),
    "phi": lambda: hf.PhiConfig(**LLAMA_LIKE),
    "nanochat": lambda: hf.NanoChatConfig(**LLAMA_LIKE),
    "phi3": lambda: hf.Phi3Config(**LLAMA_LIKE),
    "gpt2": lambda: hf.GPT2Config(**GPT_LIKE),
    "gptj": lambda: hf.GPTJConfig(**GPT_LIKE, rotary_dim=4),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**NO_GROUPS),
    "falcon": lambda: hf.FalconConfig(**NO_GROUPS),
    "opt": lambda: hf.OPTConfig(**NO_GROUPS, ffn_dim=48, word_embed_proj_dim=16, init_std=0.2),
    "bloom": lambda: hf.BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    ),
    "mpt": lambda: hf.MptConfig(vocab_size=VOCABULARY, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2),
    "starcoder2": lambda: hf.Starcoder2Config(**LLAMA_LIKE),
    "deepseek_v2": lambda: hf.DeepseekV2Config(**DEEPSEEK),
    "deepseek_v3": lambda: hf.DeepseekV3Config(**DEEPSEEK, n_group=2, topk_group=1),
    "qwen2_moe": lambda: hf.Qwen2MoeConfig(
        **LLAMA_LIKE, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
}


def build(family: str, seed: int = 0) -> PreTrainedModel:
    """Builds a model of two layers in evaluation mode; equal seeds give equal weights."""
    torch.manual_seed(seed)
    return hf.AutoModelForCausalLM.from_config(CONFIGS[family]()).eval()
