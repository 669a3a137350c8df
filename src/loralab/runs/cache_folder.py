"""Where everything lies that can be made again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache: `$LORALAB_CACHE`, else `loralab` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if own := os.environ.get("LORALAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loralab"
