"""Where the groups of `conf/` lie."""

from pathlib import Path

from loralab.errors import ConfigError


def find_conf() -> Path:
    """Returns the folder of configuration groups: that of the working directory, or of the source checkout.

    Raises:
        ConfigError: Neither is there.
    """
    places = [Path("conf"), Path(__file__).parents[3] / "conf"]
    found = next((place for place in places if (place / "train.yaml").is_file()), None)
    if found is None:
        raise ConfigError("conf/train.yaml is not here. Run the command in the folder that holds train.py.")
    return found
