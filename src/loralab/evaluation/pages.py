"""What every page shares: how its template is loaded and how it is written."""

import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def load_template(name: str) -> Template:
    """Loads a page's template; everything that is put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("loralab.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_page(path: Path, page: str) -> Path:
    """Writes a page, replacing an earlier one in a single step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Texts can hold lone surrogates, which UTF-8 cannot: print those as "?".
        temporary.write_bytes(page.encode("utf-8", errors="replace"))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
