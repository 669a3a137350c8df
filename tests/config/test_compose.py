"""Every choice composes, the presets are what they promise, and every rule refuses what it should."""

import ast
import dataclasses
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import hydra
import pytest
from hydra.errors import HydraException

from loralab.config import callbacks as callbacks_schema
from loralab.config import data as data_schema
from loralab.config import model as model_schema
from loralab.config import schema
from loralab.config.explanation import leaf_keys
from loralab.config.load import (
    explain,
    load_evaluate,
    load_train,
    read_yaml,
    register_schemas,
    to_yaml,
)
from loralab.config.schema import EvaluateConfig, TrainConfig
from loralab.config.validate import CHOICES, RULES
from loralab.data.formats.registry import FORMATS
from loralab.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
GROUP_CHOICES = sorted((path.parent.name, path.stem) for path in CONF.glob("*/*.yaml"))
NAMED_GROUPS = ("model", "quant", "objective", "optim", "schedule", "logger")

HUB_NAMES = {
    "gemma2_2b": "google/gemma-2-2b-it",
    "gemma2_27b": "google/gemma-2-27b-it",
    "gemma2_9b": "google/gemma-2-9b-it",
    "llama3_8b": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama3_1_8b": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3_2_1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama3_1_70b": "meta-llama/Llama-3.1-70B-Instruct",
    "llama3_2_3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama3_3_70b": "meta-llama/Llama-3.3-70B-Instruct",
    "mistral_7b": "mistralai/Mistral-7B-Instruct-v0.3",
    "mistral_nemo_12b": "mistralai/Mistral-Nemo-Instruct-2407",
    "phi3_mini": "microsoft/Phi-3-mini-4k-instruct",
    "phi4_14b": "microsoft/phi-4",
    "qwen2_5_0b5": "Qwen/Qwen2.5-0.5B-Instruct",
    "qwen2_5_7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen2_5_14b": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2_5_1b5": "Qwen/Qwen2.5-1.5B-Instruct",
    "qwen2_5_32b": "Qwen/Qwen2.5-32B-Instruct",
    "qwen2_5_3b": "Qwen/Qwen2.5-3B-Instruct",
    "qwen2_5_72b": "Qwen/Qwen2.5-72B-Instruct",
    "qwen3_8b": "Qwen/Qwen3-8B",
    "qwen3_0b6": "Qwen/Qwen3-0.6B",
    "qwen3_14b": "Qwen/Qwen3-14B",
    "qwen3_32b": "Qwen/Qwen3-32B",
    "qwen3_4b": "Qwen/Qwen3-4B",
    "smollm2_135m": None,
    "smollm2_1b7": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "tinyllama_1b": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
}

SCHEMAS = (callbacks_schema, data_schema, model_schema, schema)
"""Where the fields of all groups are."""

OUT_OF_RANGE = {
    "lora.r": ("0", "-4", "1025"),
    "lora.alpha": ("0", "-1", "inf", "nan"),
    "lora.dropout": ("-0.1", "1", "nan"),
    "lora.initial_rank": ("0", "1025"),
    "lora.virtual_tokens": ("0", "1001"),
    "quant.int8_threshold": ("-0.1", "nan"),
    "data.val_fraction": ("0", "0.5", "-0.1"),
    "data.test_fraction": ("0", "0.5", "-0.1"),
    "data.max_examples": ("0", "-1"),
    "data.max_length": ("7", "0"),
    "data.max_dropped": ("-0.01", "1.01"),
    "data.num_workers": ("-1",),
    "data.quality.min_chars": ("-1",),
    "data.quality.min_tokens": ("-1",),
    "data.quality.max_tokens": ("0",),
    "data.quality.max_repetition": ("-0.1", "1.1"),
    "data.quality.max_garble": ("-0.1", "1.1"),
    "data.quality.max_prompt_copy": ("-0.1", "1.1"),
    "data.dedup.threshold": ("0", "1.1"),
    "data.dedup.num_perm": ("15", "1025"),
    "data.contamination.ngram": ("4",),
    "data.contamination.near": ("0", "1.1"),
    "trainer.batch_tokens": ("15",),
    "trainer.epochs": ("0", "-1", "inf"),
    "trainer.max_steps": ("0", "-5"),
    "trainer.batch_size": ("0", "-1", "2.5", "true", "all"),
    "trainer.devices": ("0", "-1", "1.5", "true", "all"),
    "trainer.num_nodes": ("0", "-1"),
    "trainer.step_examples": ("0", "-1"),
    "trainer.memory_gib": ("0", "-1", "inf", "nan"),
    "trainer.accumulation": ("0", "-1"),
    "trainer.grad_clip": ("0", "-1"),
    "trainer.val_every": ("0", "-0.5", "nan"),
    "trainer.threads": ("0", "-1"),
    "trainer.gradient_checkpointing": ("0", "-1", "1.5", "some"),
    "trainer.speed.liger": ("1", "yes", "automatic"),
    "trainer.neftune_alpha": ("-1", "inf"),
    "optim.lr": ("0", "-1e-4", "1.01", "nan"),
    "optim.betas": ("[0.9]", "[0.9,1]", "[-0.1,0.9]", "[0.9,0.9,0.9]"),
    "optim.eps": ("0", "-1e-8"),
    "optim.weight_decay": ("-0.1", "1.1"),
    "optim.momentum": ("-0.1", "1"),
    "optim.lora_plus_ratio": ("0.5", "inf"),
    "schedule.warmup": ("-0.1", "inf"),
    "schedule.floor": ("-0.1", "1.1"),
    "schedule.cycles": ("0",),
    "schedule.power": ("0", "inf"),
    "schedule.decay_share": ("0", "1.1"),
    "callbacks.log_every": ("0", "-1"),
    "callbacks.checkpoint_every": ("0", "-1"),
    "callbacks.checkpoint_minutes": ("0", "inf"),
    "callbacks.keep_last": ("0", "-1"),
    "callbacks.stability.window": ("7",),
    "callbacks.stability.warmup": ("1",),
    "callbacks.stability.spike_factor": ("1", "inf", "nan"),
    "callbacks.stability.spike_sigmas": ("0", "inf"),
    "callbacks.stability.spikes": ("0",),
    "callbacks.stability.lr_factor": ("0", "1.1"),
    "callbacks.stability.lr_steps": ("0",),
    "callbacks.stability.return_steps": ("1",),
    "callbacks.stability.max_interventions": ("0",),
    "callbacks.profiler.first_step": ("-1",),
    "callbacks.profiler.steps": ("0", "-1"),
    "callbacks.early_stopping.patience": ("0", "-1"),
    "callbacks.early_stopping.min_improvement": ("-0.1", "inf"),
    "eval.watch_prompts": ("-1",),
    "eval.watch_tokens": ("0",),
    "eval.max_examples": ("0", "-1"),
    "eval.max_new_tokens": ("0", "-1"),
    "eval.batch_size": ("0", "-1"),
    "eval.samples": ("-1",),
    "seed": ("-1", "4294967296"),
}
AT_THE_EDGE = {
    "lora.r": ("1", "1024"),
    "lora.alpha": ("0.001",),
    "lora.dropout": ("0", "0.999"),
    "lora.initial_rank": ("1024", "null"),
    "lora.virtual_tokens": ("1", "1000"),
    "quant.int8_threshold": ("0",),
    "data.val_fraction": ("0.001", "0.499"),
    "data.test_fraction": ("0.001", "0.499"),
    "data.max_examples": ("1", "null"),
    "data.max_length": ("8",),
    "data.max_dropped": ("0", "1"),
    "data.num_workers": ("0", "null"),
    "data.quality.min_chars": ("0", "null"),
    "data.quality.min_tokens": ("0", "null"),
    "data.quality.max_tokens": ("1", "null"),
    "data.quality.max_repetition": ("0", "1", "null"),
    "data.quality.max_garble": ("0", "1", "null"),
    "data.quality.max_prompt_copy": ("0", "1", "null"),
    "data.dedup.threshold": ("0.001", "1"),
    "data.dedup.num_perm": ("16", "1024"),
    "data.contamination.ngram": ("5",),
    "data.contamination.near": ("0.001", "1", "null"),
    "trainer.batch_tokens": ("16", "null"),
    "trainer.epochs": ("0.001",),
    "trainer.max_steps": ("1", "null"),
    "trainer.batch_size": ("1", "auto"),
    "trainer.devices": ("1", "auto"),
    "trainer.num_nodes": ("1",),
    "trainer.step_examples": ("1", "null"),
    "trainer.memory_gib": ("0.001", "null"),
    "trainer.accumulation": ("1",),
    "trainer.grad_clip": ("0.001", "null"),
    "trainer.val_every": ("0.001", "100"),
    "trainer.threads": ("1", "null"),
    "trainer.gradient_checkpointing": ("1", "4", "true", "false"),
    "trainer.speed.liger": ("auto", "true", "false"),
    "trainer.neftune_alpha": ("0", "5"),
    "optim.lr": ("1e-9", "1"),
    "optim.betas": ("[0,0]", "[0.999,0.999]"),
    "optim.eps": ("1e-12",),
    "optim.weight_decay": ("0", "1"),
    "optim.momentum": ("0", "0.999"),
    "optim.lora_plus_ratio": ("1", "16"),
    "schedule.warmup": ("0", "500"),
    "schedule.floor": ("0", "1"),
    "schedule.cycles": ("1",),
    "schedule.power": ("0.001",),
    "schedule.decay_share": ("0.001", "1"),
    "callbacks.log_every": ("1",),
    "callbacks.checkpoint_every": ("1", "null"),
    "callbacks.checkpoint_minutes": ("0.1", "null"),
    "callbacks.keep_last": ("1",),
    "callbacks.stability.window": ("20",),
    "callbacks.stability.warmup": ("2", "64"),
    "callbacks.stability.spike_factor": ("1.01",),
    "callbacks.stability.spike_sigmas": ("0.1",),
    "callbacks.stability.spikes": ("1",),
    "callbacks.stability.lr_factor": ("0.001", "1"),
    "callbacks.stability.lr_steps": ("1",),
    "callbacks.stability.return_steps": ("2",),
    "callbacks.stability.max_interventions": ("1",),
    "callbacks.profiler.first_step": ("0", "100"),
    "callbacks.profiler.steps": ("1",),
    "callbacks.early_stopping.patience": ("1", "null"),
    "callbacks.early_stopping.min_improvement": ("0",),
    "eval.watch_prompts": ("0",),
    "eval.watch_tokens": ("1",),
    "eval.max_examples": ("1",),
    "eval.max_new_tokens": ("1", "null"),
    "eval.batch_size": ("1",),
    "eval.samples": ("0",),
    "seed": ("0", "4294967295"),
}
UNKNOWN_CHOICES = {
    "model.attention": ("sdpaa", "sdpa"),
    "quant.name": ("nf5", "nf4"),
    "quant.compute_dtype": ("bf17", "bf16"),
    "quant.storage_dtype": ("uint9", "uint8"),
    "lora.method": ("loar", "lora"),
    "lora.bias": ("lora_olny", "lora_only"),
    "lora.init": ("pisssa", "pissa"),
    "data.name": ("flie", "file"),
    "data.format": ("alpacca", "alpaca"),
    "data.on_error": ("skp", "skip"),
    "data.preference": ("choosen", "chosen"),
    "data.privacy.action": ("maks", "mask"),
    "data.dedup.near": ("promt", "prompt"),
    "data.contamination.action": ("reprt", "report"),
    "data.split.method": ("hsah", "hash"),
    "data.over_length": ("cut_respnse", "cut_response"),
    "trainer.accelerator": ("gup", "gpu"),
    "trainer.strategy": ("ddq", "ddp"),
    "trainer.precision": ("bf17", "bf16"),
    "objective.name": ("sfft", "sft"),
    "optim.name": ("adam_w", "adamw"),
    "schedule.name": ("cosin", "cosine"),
    "schedule.decay_shape": ("sqr", "sqrt"),
    "logger.name": ("wandbb", "wandb"),
    "logger.mode": ("off-line", "offline"),
}
BETWEEN_GROUPS = [
    (["data=file"], "data.path=FILE"),
    (["data=file", "data.path=a", "data.sources=[{path:b}]"], "Give one of them."),
    (["data=file", "data.path=3"], "data.path=3 is no path."),
    (["data=file", "data.path=[]"], "data.path=[] is no path."),
    (["data.sources=[{path:b}]"], "Add data=file."),
    (["data=file", "data.sources=[{path:a,weight:0}]"], "data.sources[0].weight=0.0 is out of range."),
    (["data=file", "data.sources=[{path:a},{path:b,rows:0}]"], "data.sources[1].rows=0 is out of range."),
    (["data=file", "data.sources=[{path:a,rows:5,weight:1}]"], "data.sources[0] has both weight and rows."),
    (["data=file", "data.sources=[{name:a}]"], "data.sources[0].path=None is no path."),
    (["data=file", "data.sources=[{path:a,name:x},{path:b,name:x}]"], "two sources are called 'x'."),
    (
        ["data=file", "data.path=a", "data.val_path=b", "data.val_fraction=0.2"],
        "data.val_fraction=0.2 has no effect beside data.val_path, whose rows are all used.",
    ),
    (
        ["data=file", "data.path=a", "data.test_path=b", "data.test_fraction=0.2"],
        "data.test_fraction=0.2 has no effect beside data.test_path, whose rows are all used.",
    ),
    (["data.split.method=grouped"], "needs data.split.by: a field of the rows or near."),
    (["data.split.method=temporal"], "needs data.split.by: a field of the rows."),
    (["data.split.method=grouped", "data.split.by=length"], "belongs to data.split.method=stratified."),
    (["data.split.by=user"], "has no effect with data.split.method=random."),
    (["data=file", "data.sources=[{path:a,format:alpacca}]"], "data.sources[0].format='alpacca' is unknown."),
    (
        ["data.contamination.benchmarks=[a.jsonl]", "data.contamination.action=none"],
        "data.contamination.benchmarks has no effect with data.contamination.action=none.",
    ),
    (
        ["data.contamination.benchmarks=[a.jsonl,{path:b,format:txt}]"],
        "data.contamination.benchmarks[1].format='txt' is unknown. Did you mean 'text'?",
    ),
    (
        ["data.contamination.benchmarks=[{format:text}]"],
        "data.contamination.benchmarks[0].path=None is no path.",
    ),
    (["data.supervise=[1]", "data.over_length=cut_oldest"], "would number the turns anew"),
    (["data.prompt_template.system=x"], "needs data.prompt_template.user"),
    (["data.supervise=answers"], "data.supervise='answers' is not allowed."),
    (["data.supervise=[0]"], "data.supervise=[0] is not allowed."),
    (["data.supervise=[]"], "data.supervise=[] is not allowed."),
    (["data.privacy.kinds=[emial]"], "data.privacy.kinds='emial' is unknown. Did you mean 'email'?"),
    (["data.quality.min_tokens=9", "data.quality.max_tokens=8"], "data.quality.min_tokens=9 is above"),
    (["data.packing=true", "trainer.batch_tokens=512"], "Set trainer.batch_tokens=null"),
    (["data.packing=true", "model.attention=eager"], "Use model.attention=auto."),
    (["dry_run=true", "resume=old"], "Leave resume out."),
    (["data.path=rows.jsonl"], "Add data=file."),
    (["data.val_path=rows.jsonl"], "Add data=file."),
    (["lora.targets=[]"], "lora.targets=[]"),
    (["lora.targets=''"], "lora.targets="),
    (["lora.targets=null"], "lora.targets=None"),
    (["lora.targets=[q_proj,3]"], "lora.targets=['q_proj', 3]"),
    (["trainer=cpu", "model.attention=flash_attention_2"], "Use model.attention=sdpa."),
    (["run.name=a/b"], "run.name='a/b' is not a folder name."),
    (["run.name=.."], "run.name='..' is not a folder name."),
    (["run.name=''"], "run.name='' is not a folder name."),
    (["resume=old", "run.name=new"], "Leave run.name out."),
    (
        ["trainer.batch_size=auto", "trainer.accumulation=2"],
        "trainer.accumulation=2 follows from trainer.batch_size=auto.",
    ),
    (
        ["trainer=fsdp", "quant=int8"],
        "trainer.strategy=fsdp cannot split int8 weights",
    ),
    (
        ["trainer.step_examples=8", "trainer.accumulation=2"],
        "trainer.step_examples=8 and trainer.accumulation=2 both say how large a step is.",
    ),
    (["trainer.batch_size=auto", "trainer.batch_tokens=512"], "trainer.batch_size=auto has no place."),
    (["trainer.step_examples=8", "trainer.batch_tokens=512"], "trainer.step_examples=8 has no place."),
    (["callbacks.stability.warmup=65"], "is above callbacks.stability.window=64"),
    (
        ["logger.uri=sqlite:///a.db"],
        "logger.uri=sqlite:///a.db has no effect with logger=local; it belongs to",
    ),
    (["logger=wandb", "logger.uri=http://a"], "logger=wandb; it belongs to mlflow. Leave it out."),
    (["logger=mlflow", "logger.mode=disabled"], "logger=mlflow; it belongs to wandb. Leave it out."),
    (["logger=tensorboard", "logger.project=mine"], "it belongs to wandb, mlflow. Leave it out."),
    (
        ["callbacks.early_stopping.min_improvement=0.1"],
        "min_improvement=0.1 has no effect without callbacks.early_stopping.patience. Give that too",
    ),
    (
        ["callbacks.stability.enabled=false", "callbacks.stability.window=32"],
        "callbacks.stability.window=32 has no effect with callbacks.stability.enabled=false.",
    ),
    (
        ["callbacks=profiler", "trainer.max_steps=5"],
        "trainer.max_steps=5 gives 5 steps, and callbacks.profiler.first_step=5 of warm-up come before the "
        "first that is profiled. Use 6 or more steps, or a callbacks.profiler.first_step of at most 4.",
    ),
    (
        ["callbacks.profiler.steps=2"],
        "callbacks.profiler.steps=2 has no effect without callbacks=profiler. Give that too,",
    ),
    (["resume=auto", "logger.mode=offline"], "logger.mode=offline has no effect with logger=local"),
    (["optim=paged_adamw", "trainer=cpu"], "Use optim=adamw."),
    (
        ["trainer=low_memory", "trainer.gradient_checkpointing=false"],
        "keeps nothing of the kind. Set the latter to true.",
    ),
    (["trainer=low_memory", "trainer.accelerator=cpu"], "Use trainer.offload_activations=false."),
    (["trainer.speed.liger=true", "trainer.accelerator=cpu"], "Use trainer.speed.liger=auto."),
    (["trainer.speed.liger=true", "trainer.speed.fused_head=false"], "Leave one of them out."),
    (["optim=schedule_free_adamw", "schedule=linear"], "Use schedule=constant."),
]
READERS = {
    "lora.initial_rank": ["lora=adalora"],
    "lora.virtual_tokens": ["lora=prompt"],
    "quant.int8_threshold": ["quant=int8"],
    "optim.momentum": ["optim=sgd", "optim.nesterov=false"],
    "callbacks.early_stopping.min_improvement": ["callbacks.early_stopping.patience=1"],
    "callbacks.profiler.first_step": ["callbacks=profiler"],
    "callbacks.profiler.steps": ["callbacks=profiler"],
    "logger.mode": ["logger=wandb"],
    "schedule.cycles": ["schedule=cosine_restarts"],
    "schedule.power": ["schedule=polynomial"],
    "schedule.decay_share": ["schedule=wsd"],
    "schedule.decay_shape": ["schedule=wsd"],
}
"""The choices under which a key has an effect, where it has none by default."""
NEEDED = {
    ("data", "file"): ["data.path=rows.jsonl"],
    **{("lora", start): ["quant=none"] for start in ("pissa", "olora", "corda")},
}
"""What a choice asks for besides itself."""


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    register_schemas()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        yield


def train_config(*overrides: str) -> TrainConfig:
    return load_train(hydra.compose("train", overrides=list(overrides)), None, overrides)


def evaluate_config(*overrides: str) -> EvaluateConfig:
    return load_evaluate(hydra.compose("evaluate", overrides=list(overrides)))


def fault_of(load: Callable[..., object], *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    return str(caught.value)


def cases(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(key, value) for key, values in table.items() for value in values]


@pytest.mark.parametrize(("group", "choice"), GROUP_CHOICES)
def test_every_choice_composes_into_a_valid_config(group: str, choice: str) -> None:
    config = train_config(f"{group}={choice}", *NEEDED.get((group, choice), []))

    if group == "data":
        assert config.data.name == ("calls" if choice == "calls" else "file")
    elif group in NAMED_GROUPS:
        assert getattr(config, group).name == choice


def test_the_five_groups_of_an_experiment_are_there() -> None:
    assert {"model", "quant", "lora", "data", "trainer"} <= {group for group, _ in GROUP_CHOICES}


def test_the_defaults_are_the_embedded_model_and_task_in_4_bits() -> None:
    config = train_config()

    assert (config.model.name, config.model.path) == ("smollm2_135m", None)
    assert (config.data.name, config.quant.name) == ("calls", "nf4")
    assert (config.lora.r, config.lora.alpha) == (8, 16.0)
    assert config.optim.lr == 2e-3


def test_a_model_of_the_users_own_has_its_own_name_and_a_careful_rate() -> None:
    config = train_config("model.path=models/my-llama")

    assert config.model.name == "my-llama"
    assert config.optim.lr == 2e-4
    assert train_config("model.path=models/my-llama", "optim.lr=1e-5").optim.lr == 1e-5
    assert train_config("model=llama3_8b").optim.lr == 2e-4


def test_model_and_rank_are_chosen_from_groups() -> None:
    config = train_config("model=llama3_8b", "lora=r64")

    assert (config.lora.r, config.lora.alpha) == (64, 128.0)
    assert config.model.path == "meta-llama/Meta-Llama-3-8B-Instruct"


@pytest.mark.parametrize("name", HUB_NAMES)
def test_model_choices_name_the_hub_repository(name: str) -> None:
    assert train_config(f"model={name}").model.path == HUB_NAMES[name]


def test_every_model_choice_is_listed_here() -> None:
    assert {choice for group, choice in GROUP_CHOICES if group == "model"} == set(HUB_NAMES)


@pytest.mark.parametrize(("choice", "r", "alpha"), [
    ("r8", 8, 16.0), ("r16", 16, 32.0), ("r32", 32, 64.0), ("r64", 64, 128.0), ("r128", 128, 256.0),
])  # fmt: skip
def test_alpha_is_twice_the_rank_of_a_choice(choice: str, r: int, alpha: float) -> None:
    lora = train_config(f"lora={choice}").lora

    assert (lora.r, lora.alpha) == (r, alpha)


def test_alpha_follows_a_rank_that_is_given() -> None:
    assert train_config("lora.r=12").lora.alpha == 24.0


def test_alpha_follows_the_rank_where_no_choice_says_that_it_is_null() -> None:
    lora = train_config("~lora", "lora.r=64").lora

    assert (lora.r, lora.alpha) == (64, 128.0)


def test_alpha_that_is_given_wins() -> None:
    lora = train_config("lora=r64", "lora.r=12", "lora.alpha=7.5").lora

    assert (lora.r, lora.alpha) == (12, 7.5)


def test_preset_quick() -> None:
    config = train_config("experiment=quick")

    assert config.lora.r == 8
    assert config.lora.alpha == 16.0
    assert config.lora.targets == ["q_proj", "v_proj"]
    assert config.lora.dropout == 0.0
    assert (config.trainer.epochs, config.trainer.accumulation) == (1.0, 1)
    assert config.optim.lr == 3e-4


def test_preset_balanced() -> None:
    config = train_config("experiment=balanced")

    assert config.lora.r == 32
    assert config.lora.alpha == 64.0
    assert config.lora.targets == "attention"
    assert config.lora.dropout == 0.0
    assert (config.trainer.epochs, config.trainer.accumulation) == (3.0, 4)
    assert config.optim.lr == 2e-4


def test_preset_high_quality() -> None:
    config = train_config("experiment=high_quality")

    assert config.lora.r == 128
    assert config.lora.alpha == 256.0
    assert config.lora.targets == "all_linear"
    assert config.lora.dropout == 0.1
    assert (config.trainer.epochs, config.trainer.accumulation) == (5.0, 8)
    assert config.optim.lr == 1e-4


def test_the_command_line_wins_over_a_preset() -> None:
    config = train_config("experiment=quick", "lora=r64", "optim.lr=1e-3", "trainer.epochs=2")

    assert (config.lora.r, config.lora.alpha) == (64, 128.0)
    assert config.lora.targets == ["q_proj", "v_proj"]
    assert (config.optim.lr, config.trainer.epochs) == (1e-3, 2.0)


@pytest.mark.parametrize(
    ("choice", "lr"), [("adamw", 2e-4), ("adafactor", 2e-4), ("lion", 4e-5), ("sgd", 2e-2), ("lamb", 1e-3)]
)
def test_the_default_rate_follows_the_optimizer(choice: str, lr: float) -> None:
    assert train_config("model=llama3_8b", f"optim={choice}").optim.lr == pytest.approx(lr)
    assert train_config("model=llama3_8b", f"optim={choice}", "optim.lr=1e-5").optim.lr == 1e-5


def test_the_default_rate_stays_in_its_range() -> None:
    assert train_config("lora=vera", "optim=sgd").optim.lr == 1.0


def test_schedule_free_brings_its_constant_rate() -> None:
    assert train_config("optim=schedule_free_adamw").schedule.name == "constant"


def test_factors_of_modules_are_typed_in_the_command_line() -> None:
    config = train_config("optim.lr_pattern={lm_head:0.1,layers.0:2}")
    assert config.optim.lr_pattern == {"lm_head": 0.1, "layers.0": 2.0}


@pytest.mark.parametrize(("key", "value"), cases(OUT_OF_RANGE))
def test_value_out_of_range_is_refused(key: str, value: str) -> None:
    message = fault_of(train_config, *READERS.get(key, []), f"{key}={value}")

    assert message.startswith(f"{key}=")
    assert "is out of range. Allowed: " in message


@pytest.mark.parametrize(("key", "value"), cases(AT_THE_EDGE))
def test_value_at_the_edge_of_its_range_is_taken(key: str, value: str) -> None:
    taken = attrgetter(key)(train_config(*READERS.get(key, []), f"{key}={value}"))

    words = {"null": {"lora.alpha": 16.0, "optim.lr": 2e-3}.get(key), "auto": "auto"}
    words |= {"true": True, "false": False}
    assert taken == (words[value] if value in words else ast.literal_eval(value))


@pytest.mark.parametrize(("key", "value", "close"), [(key, *pair) for key, pair in UNKNOWN_CHOICES.items()])
def test_unknown_choice_is_refused_with_the_closest_one(key: str, value: str, close: str) -> None:
    message = fault_of(train_config, *READERS.get(key, []), f"{key}={value}")

    assert message.startswith(f"{key}={value!r} is unknown. Did you mean {close!r}? Allowed: ")


@pytest.mark.parametrize(("overrides", "fragment"), BETWEEN_GROUPS)
def test_values_that_do_not_go_together_are_refused(overrides: list[str], fragment: str) -> None:
    assert fragment in fault_of(train_config, *overrides)


def test_what_a_preset_sets_may_wait_for_when_it_has_an_effect() -> None:
    words = [
        "callbacks.stability.window=32", "callbacks.early_stopping.min_improvement=0.1",
        "logger.project=mine", "logger.mode=offline",
    ]  # fmt: skip
    composed = hydra.compose("train", overrides=[*words, "callbacks.stability.enabled=false"])
    assert load_train(composed, None, ["callbacks.stability.enabled=false", "experiment=ours"]).logger.project


def test_a_default_that_is_typed_is_no_fault() -> None:
    assert train_config("logger.mode=online", "logger.uri=null").logger.name == "local"


def test_what_is_typed_beside_the_name_of_a_run_is_for_that_runs_config() -> None:
    words = ["logger.mode=offline", "callbacks.early_stopping.min_improvement=0.1"]
    assert train_config("resume=old", *words).logger.mode == "offline"


def test_every_rule_is_tried_here() -> None:
    assert set(OUT_OF_RANGE) == set(AT_THE_EDGE) == set(RULES)
    assert set(UNKNOWN_CHOICES) == set(CHOICES)
    assert {"auto", *FORMATS} == set(CHOICES["data.format"])


def test_every_rule_is_about_a_key_of_the_schema() -> None:
    assert {*RULES, *CHOICES} <= set(leaf_keys(TrainConfig))


def test_all_faults_are_reported_in_one_message() -> None:
    message = fault_of(
        train_config, "optim.lr=3", "lora.r=0", "quant.name=nf5", "run.name=a/b", "data.path=rows.jsonl"
    )

    assert message.splitlines()[0] == "5 faults in the configuration:"
    assert len(message.splitlines()) == 6
    for key in ("optim.lr=3.0", "lora.r=0", "quant.name='nf5'", "run.name='a/b'", "data.path"):
        assert f"\n  {key} " in message


@pytest.mark.parametrize(("override", "message"), [
    ("lora.rank=3", "lora.rank is unknown. Did you mean 'lora.r'?"),
    ("lora.rank=null", "lora.rank is unknown. Did you mean 'lora.r'?"),
    ("+lora.rank=3", "lora.rank is unknown. Did you mean 'lora.r'?"),
    ("++lora.rank=3", "lora.rank is unknown. Did you mean 'lora.r'?"),
    ("lora={r:3,rank:4}", "lora.rank is unknown. Did you mean 'lora.r'?"),
    ("data.columns.promt=q", "data.columns.promt is unknown. Did you mean 'data.columns.prompt'?"),
    ("modle=llama3_8b", "modle is unknown. Did you mean 'model'?"),
    ("expermient=quick", "expermient is unknown. Did you mean 'experiment'?"),
    (
        "logger=wandbb",
        "logger=wandbb is unknown. Did you mean 'wandb'? Known: local, mlflow, tensorboard, wandb.",
    ),
    ("+experiment=quick", "experiment is given twice. Give it once and without '+': experiment=NAME."),
    ("lora=r8,r16", "lora=r8,r16 gives several values. Add -m for one run each; a list is lora=[r8,r16]."),
    ("~lora.r", "~lora.r cannot be removed. Give it another value, or null where that is allowed."),
    ("lora.r=null", "lora.r=null is not a whole number."),
    (
        "data.columns=null",
        "data.columns=null is not a group of keys. Set each by itself, such as data.columns.prompt=VALUE.",
    ),
    ("lora.r=abc", "lora.r='abc' is not a whole number."),
    ("lora.r='abc'", "lora.r='abc' is not a whole number."),
    ("lora.r=1.5", "lora.r=1.5 is not a whole number."),
    ("lora={r:abc}", "lora.r='abc' is not a whole number."),
    ("trainer.max_steps=many", "trainer.max_steps='many' is not a whole number or null."),
    ("data.max_dropped=few", "data.max_dropped='few' is not a number."),
    ("data.packing=maybe", "data.packing='maybe' is not true or false."),
    ("data.encoding=[utf-8]", "data.encoding=[utf-8] is not a text."),
    ("optim.betas=[a,0.9]", "optim.betas[0]='a' is not a number."),
    ("optim.betas=0.9", "optim.betas=0.9 is not a list. Write optim.betas=[0.9]."),
    ("optim.betas=null", "optim.betas=null is not a list. Give a list, or leave the key out."),
    (
        "data.contamination.benchmarks=rows.jsonl",
        "data.contamination.benchmarks='rows.jsonl' is not a list. "
        "Write data.contamination.benchmarks=[{path:rows.jsonl}].",
    ),
    (
        "data.contamination.benchmarks=[a.jsonl,5]",
        "data.contamination.benchmarks[1]=5 is not a group of keys. Write it as {path:5}.",
    ),
    (
        "data.contamination.benchmarks=[{path:a.jsonl,colums:{prompt:q}}]",
        "data.contamination.benchmarks[0].colums.prompt is unknown. Did you mean 'columns.prompt'?",
    ),
    (
        "data.contamination.benchmarks=[{path:a.jsonl,weight:2}]",
        "data.contamination.benchmarks[0].weight is unknown. Known: columns, encoding, format, path, "
        "revision, split, subset.",
    ),
    (
        "data.contamination.benchmarks=[{path:a.jsonl,encoding:[b]}]",
        "data.contamination.benchmarks[0].encoding=['b'] is not a text.",
    ),
    (
        "data.quality.languages=en",
        "data.quality.languages='en' is not a list or null. Write data.quality.languages=[en].",
    ),
    (
        "data.privacy.kinds=email",
        "data.privacy.kinds='email' is not a list. Write data.privacy.kinds=[email].",
    ),
    ("data.sources=a.jsonl", "data.sources='a.jsonl' is not a list. Write data.sources=[{path:a.jsonl}]."),
    (
        "data.sources=[a.jsonl]",
        "data.sources[0]='a.jsonl' is not a group of keys. Write it as {path:a.jsonl}.",
    ),
    (
        "data.sources=[{path:a},{path:b,wieght:2}]",
        "data.sources[1].wieght is unknown. Did you mean 'weight'?",
    ),
    (
        "data.sources=[{file:a}]",
        "data.sources[0].file is unknown. Known: columns, encoding, epochs, format, loss_weight, name, path, "
        "prompt_template, revision, rows, split, subset, weight.",
    ),
    (
        "data.sources=[{path:a,columns:{promt:q}}]",
        "data.sources[0].columns.promt is unknown. Did you mean 'columns.prompt'?",
    ),
    ("data.sources=[{path:a,weight:much}]", "data.sources[0].weight='much' is not a number or null."),
    ("lora.r", "cannot read 'lora.r': Error parsing override 'lora.r'."),
])  # fmt: skip
def test_override_that_does_not_compose_is_explained(override: str, message: str) -> None:
    with pytest.raises((HydraException, ConfigError)) as caught:
        train_config(override)

    said = str(caught.value) if isinstance(caught.value, ConfigError) else explain(caught.value, TrainConfig)
    assert said == message


@pytest.mark.parametrize(("overrides", "fragment"), [
    ([], "run is missing: python evaluate.py run=RUN"),
    (["run=a", "max_examples=0"], "max_examples=0 is out of range."),
    (["run=a", "max_new_tokens=0"], "max_new_tokens=0 is out of range."),
    (["run=a", "accelerator=gup"], "accelerator='gup' is unknown. Did you mean 'gpu'?"),
])  # fmt: skip
def test_evaluate_refuses_what_it_cannot_use(overrides: list[str], fragment: str) -> None:
    assert fragment in fault_of(evaluate_config, *overrides)


def test_evaluate_takes_the_runs_own_values_by_default() -> None:
    assert evaluate_config("run=a") == EvaluateConfig(run="a")


def test_train_config_survives_yaml(tmp_path: Path) -> None:
    config = train_config("experiment=balanced", "data=file", "data.path=rows.jsonl", "data.columns.prompt=q")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))

    assert read_yaml(path, TrainConfig) == config


def test_evaluate_config_survives_yaml(tmp_path: Path) -> None:
    config = evaluate_config("run=a", "max_examples=3", "accelerator=cpu")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))

    assert read_yaml(path, EvaluateConfig) == config


@pytest.mark.parametrize("text", ["lora:\n  rank: 3\n", "lora:\n  r: many\n"])
def test_yaml_that_does_not_match_the_schema_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    assert f"{path} cannot be read: " in fault_of(read_yaml, path, TrainConfig)


def test_missing_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    assert f"{path} is missing" in fault_of(read_yaml, path, TrainConfig)


def test_every_field_is_documented_under_it() -> None:
    trees = [ast.parse(Path(module.__file__).read_text()) for module in SCHEMAS]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    explained = {cls.name for cls in classes if ast.get_docstring(cls)}
    # A field that holds a group is documented by that group.
    bare = [
        f"{cls.name}.{ast.unparse(item.target)}"
        for cls in classes
        for item, below in zip(cls.body, [*cls.body[1:], ast.Pass()], strict=True)
        if isinstance(item, ast.AnnAssign)
        and not is_text(below)
        and ast.unparse(item.annotation) not in explained
    ]

    assert {cls.name for cls in classes} >= {"TrainConfig", "LoraConfig", "EvaluateConfig"}
    modules = {name: each for module in SCHEMAS for name, each in vars(module).items()}
    assert all(dataclasses.is_dataclass(modules[cls.name]) for cls in classes)
    assert bare == []


def is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and bool(node.value.value.strip())
    )
