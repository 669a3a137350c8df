import pytest
from tests.unit.model.tiny_models import build

from loralab.config.model import LoraConfig
from loralab.errors import ConfigError
from loralab.model.adapters.lora import check_lora
from loralab.model.adapters.patterns import layer_rank, layer_scale

NAME = "model.layers.1.self_attn.q_proj"


def test_a_layer_takes_the_first_pattern_that_names_it() -> None:
    lora = LoraConfig(
        r=8, alpha=16.0, rank_pattern={"layers.0.*": 2, "q_proj": 4}, alpha_pattern={"q_proj": 3.0}
    )
    assert layer_rank(lora, NAME) == 4
    assert layer_rank(lora, NAME.replace("1", "0")) == 2
    assert layer_rank(lora, "model.layers.1.mlp.up_proj") == 8
    assert layer_scale(lora, NAME) == 3.0 / 4
    assert layer_scale(lora, "model.layers.1.mlp.up_proj") == 16.0 / 8
    lora.rslora = True
    assert layer_scale(lora, NAME) == 3.0 / 2


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"rank_pattern": {"q_prj": 2}}, r"lora.rank_pattern: 'q_prj' matches none.*Closest: q_proj"),
        ({"alpha_pattern": {"mlp": 2.0}}, r"lora.alpha_pattern: 'mlp' matches none"),
        ({"rank_pattern": {"(q": 2}}, r"lora.rank_pattern: '\(q' is no regular expression"),
        # Keys and values have two heads of 8.
        ({"r": 64}, r"lora.r=64 is above the width of .*self_attn.k_proj \(16\). Use 16"),
        ({"r": 4, "rank_pattern": {"up_proj": 40}}, r"rank_pattern=40 is above .* \(32\).*{up_proj: 32}"),
        ({"r": 4, "bias": "all"}, r"lora.bias=all has no effect: LlamaForCausalLM has no biases"),
        ({"r": 4, "bias": "lora_only"}, r"the adapted layers have no biases"),
        ({"r": 4, "targets": ["embed_tokens"], "dora": True}, r"lora.dora=true is made for linear layers"),
        ({"r": 4, "targets": ["embed_tokens"], "init": "eva"}, r"lora.init=eva is made for linear layers"),
        ({"r": 4, "modules_to_save": ["lm_hed"]}, r"lora.modules_to_save: 'lm_hed' .* Closest: lm_head"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(lora: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_lora(build("llama"), LoraConfig(**lora))
