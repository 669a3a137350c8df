"""Rules about continuing a run."""

from collections.abc import Iterator
from dataclasses import fields

from loralab.config.schema import TrainConfig
from loralab.errors import did_you_mean

AUTO = "auto"


def resume_faults(config: TrainConfig) -> Iterator[str]:
    """Yields what contradicts `resume`."""
    if config.resume is None:
        if config.resume_changes not in (False, None):
            yield "resume_changes says what may differ from a resumed run. Give resume=RUN, or leave it out."
        return
    if config.resume != AUTO and config.run.name is not None:
        yield "resume continues a run under its own id. Leave run.name out."
    if config.dry_run:
        yield "dry_run plans a new run. Leave resume out."
    allowed = config.resume_changes
    if allowed is None or isinstance(allowed, bool):
        return
    known = set(_keys(TrainConfig))
    for key in allowed_keys(config):
        if key not in known:
            yield f"resume_changes={key} is unknown.{did_you_mean(key, known)} Allowed: true, or keys."


def allowed_keys(config: TrainConfig) -> list[str]:
    """Lists the keys and groups that `resume_changes` names, which may be given as one word."""
    allowed = config.resume_changes
    if isinstance(allowed, list):
        return [str(key) for key in allowed]
    return [] if allowed is None or isinstance(allowed, bool) else str(allowed).split(",")


def _keys(schema: type, prefix: str = "") -> Iterator[str]:
    for item in fields(schema):
        yield f"{prefix}{item.name}"
        if isinstance(item.type, type) and hasattr(item.type, "__dataclass_fields__"):
            yield from _keys(item.type, f"{prefix}{item.name}.")
