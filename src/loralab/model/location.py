"""Where a model lies: in the installation, in a folder, in a GGUF file or on the Hub."""

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

from loralab.config.model import ModelConfig
from loralab.errors import ModelError, did_you_mean
from loralab.model.embedded import embedded_model_dir
from loralab.model.gguf_file import GGUF_SUFFIX, gguf_model_dir
from loralab.model.messages import first_line

REVISION = "hub_revision"
"""Attribute in which a loaded model keeps its revision, which transformers forgets."""
REACH_S = 10
"""How long the Hub may take to answer, in seconds."""


def model_location(config: ModelConfig) -> str:
    """Returns the folder or Hub name to load from; null in the config means the embedded model.

    Raises:
        ModelError: A folder or file is named that does not exist or holds no model, or that has a revision.
    """
    if config.path is None:
        return str(embedded_model_dir())
    path = Path(config.path).expanduser()
    if config.revision is not None and path.exists():
        raise ModelError(
            f"model.revision={config.revision!r} is about models on the Hub, and model.path={config.path!r} "
            "is on this machine. Set model.revision=null."
        )
    if path.is_dir():
        return str(_model_folder(config, path))
    if path.suffix.lower() == GGUF_SUFFIX and path.is_file():
        return str(gguf_model_dir(path.resolve()))
    if _looks_local(config.path):
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "neither a folder nor a GGUF file" if path.exists() else "not there"
        raise ModelError(
            f"model.path={config.path!r} is {what}.{did_you_mean(path.name, siblings)} "
            "Give a model folder, a .gguf file or a Hub name."
        )
    return config.path


def loaded_revision(model: PreTrainedModel) -> str | None:
    """Returns the revision that `load_base` loaded of a Hub model; None for its main branch and others."""
    revision: str | None = getattr(model, REVISION, None)
    return revision


def check_reachable(config: ModelConfig, location: str) -> None:
    """Asks the Hub for one file's metadata, once: a download would retry for half a minute.

    Raises:
        ModelError: The model is neither here nor on a Hub that answers.
    """
    cached = Path(location).is_dir() or isinstance(
        try_to_load_from_cache(location, "config.json", revision=config.revision), str
    )
    if cached:
        return
    try:
        url = hf_hub_url(location, "config.json", revision=config.revision)
        get_hf_file_metadata(url, timeout=REACH_S)
    except Exception as error:  # the HTTP library beneath, and with it its errors, differ between versions
        raise ModelError(loading_failed(config, location, error)) from error


def loading_failed(config: ModelConfig, location: str, error: Exception) -> str:
    """Says in a line why a model or tokenizer could not be loaded, and what to do."""
    if "trust_remote_code" in str(error):
        return (
            f"{location} brings code of its own, which runs only if you allow it: read the code, then set "
            "model.trust_remote_code=true."
        )
    if isinstance(error, SafetensorError):
        return (
            f"the weights of {location} are damaged or not whole ({first_line(error)}). Get them again; of a "
            "git clone, with `git lfs pull`."
        )
    if "ignore_mismatched_sizes" in str(error):
        return (
            f"the weights of {location} have other shapes than its config.json says. Give the config.json "
            "that belongs to them."
        )
    if isinstance(error, StrictDataclassError):
        return f"config.json of {location} is no description of a model: {' '.join(str(error).split())}"
    if Path(location).is_dir():
        return f"{location} cannot be loaded: {first_line(error)}"
    return (
        f"model={config.name} needs {location!r} from the Hugging Face Hub, which has no such model, does "
        "not let this account read it, or cannot be reached. Check the name and the network, log in with "
        f"`hf auth login`, or give a folder with model.path=DIR. ({first_line(error)})"
    )


def _model_folder(config: ModelConfig, path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    files = sorted(item.name for item in path.iterdir() if item.suffix.lower() == GGUF_SUFFIX)
    if files:
        raise ModelError(
            f"model.path={config.path!r} is a folder of GGUF files. Name one: model.path={path / files[0]}."
        )
    if (path / "adapter_config.json").is_file():
        raise ModelError(f"model.path={config.path!r} holds an adapter. Give the model that it was made for.")
    raise ModelError(f"model.path={config.path!r} holds no config.json, so it is not a model folder.")


def _looks_local(path: str) -> bool:
    """Whether a path cannot be a Hub name, which is `name` or `owner/name`."""
    return (
        Path(path).expanduser().is_absolute()
        or path.startswith((".", "~"))
        or path.count("/") > 1
        or path.lower().endswith(GGUF_SUFFIX)
        or Path(path).exists()
    )
