"""What makes two results seeds of one configuration: the parameters that separate rows, and the data."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pipeline.experiments.results import ORIGIN, Results

SEED = "train.seed"
UNCOMPARED = {SEED, "train.diagnostics", "data.sha256", *ORIGIN}
"""Parameters that do not separate rows: the seed, diagnostics, which change no result, and where the data is from."""


def configuration(record: Results) -> dict[str, Any]:
    """Return the parameters that separate rows."""
    return {key: value for key, value in record.params.items() if _separates_rows(key)}


def configuration_hash(record: Results) -> str:
    """Return one SHA-256 over all that results must share to be seeds of one row: parameters and data."""
    content = json.dumps([configuration(record), record.dataset_hash], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def short_names(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the last parts of parameters' names, or full names where these are not unique."""
    short = [key.rsplit(".", 1)[-1] for key in keys]
    return tuple(name if short.count(name) == 1 else key for key, name in zip(keys, short, strict=True))


def _separates_rows(key: str) -> bool:
    """Return whether a parameter separates rows; those of inspect and export affect no result that rows compare."""
    return key not in UNCOMPARED and not key.startswith(("inspect.", "export."))
