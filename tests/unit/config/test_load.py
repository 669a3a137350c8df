"""Composing the configuration of a run outside of a run."""

import pytest
from hydra.core.global_hydra import GlobalHydra

from loralab.config import folder
from loralab.config.data import BenchmarkConfig, ColumnsConfig
from loralab.config.load import compose_train, read_yaml, to_yaml
from loralab.config.schema import TrainConfig
from loralab.errors import ConfigError


def test_words_are_composed_as_a_run_would(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = compose_train(
        ["model=llama3_8b", "lora=r64", "trainer.batch_size=2", "+lora.rank_pattern.q_proj=4"]
    )
    assert (config.model.name, config.model.path) == ("llama3_8b", "meta-llama/Meta-Llama-3-8B-Instruct")
    assert config.model.architecture["num_hidden_layers"] == 32
    assert (config.lora.r, config.lora.alpha, config.lora.rank_pattern) == (64, 128.0, {"q_proj": 4})
    assert (config.trainer.batch_size, config.optim.lr) == (2, 2e-4)
    # Hydra is left as it was, for a second call and for other users.
    assert not GlobalHydra.instance().is_initialized()
    assert compose_train([]).model.path is None


def test_the_folder_of_the_user_comes_before_that_of_the_checkout(monkeypatch, tmp_path, repository):
    conf = tmp_path / "conf"
    conf.mkdir()
    for path in (repository / "conf").iterdir():
        (conf / path.name).symlink_to(path)
    (conf / "lora").unlink()
    (conf / "lora").mkdir()
    (conf / "lora" / "r8.yaml").write_text("r: 24\n")
    monkeypatch.chdir(tmp_path)
    assert compose_train([]).lora.r == 24


def test_a_missing_folder_is_said(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "__file__", str(tmp_path / "a" / "b" / "c" / "folder.py"))
    with pytest.raises(ConfigError) as caught:
        compose_train([])
    assert (
        str(caught.value) == "conf/train.yaml is not here. Run the command in the folder that holds train.py."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.batchsize=3"], "trainer.batchsize is unknown. Did you mean 'trainer.batch_size'?"),
        (["+lora.rnk=3"], "lora.rnk is unknown. Did you mean 'lora.r'?"),
        (["lora.r=abc"], "lora.r='abc' is not a whole number."),
        (["lora.r=0"], "lora.r=0 is out of range. Allowed: 1 to 1024."),
        (["lora=64"], "lora=64: a group takes the name of one of its choices, such as lora=r8; see --help."),
        (["foo"], "cannot read 'foo': Error parsing override 'foo'."),
    ],
    ids=["key", "added", "type", "range", "group", "form"],
)
def test_wrong_words_get_the_message_of_a_run(words, message):
    with pytest.raises(ConfigError) as caught:
        compose_train(words)
    assert str(caught.value) == message


def test_an_unknown_choice_gets_the_closest_and_all():
    with pytest.raises(ConfigError) as caught:
        compose_train(["model=llama3_8"])
    assert str(caught.value).startswith(
        "model=llama3_8 is unknown. Did you mean 'llama3_8b'? Known: gemma2_27b, "
    )


def test_benchmarks_are_paths_or_groups_and_survive_a_file(tmp_path):
    group = "{path:'hub:openai/gsm8k',subset:main,columns:{prompt:question}}"
    config = compose_train([f"data.contamination.benchmarks=[exam.jsonl,{group}]"])
    expected = [
        "exam.jsonl",
        BenchmarkConfig(path="hub:openai/gsm8k", subset="main", columns=ColumnsConfig(prompt="question")),
    ]
    assert config.data.contamination.benchmarks == expected
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert read_yaml(tmp_path / "config.yaml", TrainConfig).data.contamination.benchmarks == expected


def test_ranks_of_single_layers_can_be_given_on_the_command_line():
    config = compose_train(["lora.r=16", "lora.rank_pattern={k_proj: 4}", "lora.alpha_pattern={k_proj: 8.0}"])
    assert config.lora.rank_pattern == {"k_proj": 4}
    assert config.lora.alpha_pattern == {"k_proj": 8.0}
