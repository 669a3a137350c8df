import torch
from transformers import Gemma2Config, LlamaConfig

from loralab.config.model import ModelConfig, QuantConfig
from loralab.config.schema import TrainConfig
from loralab.model.description import describe_loading

CPU = torch.device("cpu")


def test_each_choice_has_a_line_with_its_reason() -> None:
    config = TrainConfig(model=ModelConfig(name="llama", path="owner/llama", revision="v2"))
    config.trainer.precision = "fp32"
    assert describe_loading(config, LlamaConfig(), CPU, torch.float32) == [
        "model: llama, LlamaForCausalLM from owner/llama at v2",
        "dtype: float32 on cpu: trainer.precision=fp32",
        "attention: sdpa: flash_attention_2 is out: it needs a GPU; rows laid end to end run on "
        "document attention",
        "quantization: nf4, constants quantized too, multiplied in float32",
    ]


def test_added_tokens_and_capped_logits_are_told() -> None:
    model = ModelConfig(name="gemma", path="owner/gemma", added_tokens=["<a>", "<b>", "<a>"])
    config = TrainConfig(model=model, quant=QuantConfig(name="none"))
    lines = describe_loading(config, Gemma2Config(), CPU, torch.float32)
    assert lines[2].startswith("attention: eager: sdpa is out: it cannot cap attention logits")
    assert lines[3] == "quantization: none, weights are stored in the compute dtype"
    assert lines[4] == "added tokens: <a>, <b> (their embedding rows train)"


def test_a_quantized_base_says_that_it_is_left_as_it_is() -> None:
    stored = {"quant_method": "gptq", "bits": 4}
    config = TrainConfig(model=ModelConfig(name="llama", path="owner/llama"))
    lines = describe_loading(config, LlamaConfig(quantization_config=stored), CPU, torch.float32)
    assert lines[3] == (
        "quantization: llama is already quantized (GPTQ 4-bit): quant=nf4 is left out; "
        "the bytes of its layers are not reported"
    )


def test_a_threshold_that_a_cpu_does_not_use_is_told() -> None:
    config = TrainConfig(model=ModelConfig(name="llama", path="owner/llama"))
    for threshold, told in ((6.0, "int8"), (3.5, "int8; a CPU does without quant.int8_threshold=3.5")):
        config.quant = QuantConfig(name="int8", int8_threshold=threshold)
        lines = describe_loading(config, LlamaConfig(), CPU, torch.float32)
        assert lines[3] == f"quantization: {told}"
