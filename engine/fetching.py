"""What a configuration needs from the hub, found and fetched before torch is imported and before processes start."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

from configs.load import to_dict
from configs.schema import RunConfig
from engine.hub import SCHEME, beside_checkpoint, local_path, tokenizer_folder, why_unreachable

FROM_DATA = "from_data"
TOKENIZER = "tokenizer"
"""The setting, in whatever section, that names a vocabulary; also the folder of a checkpoint's own."""


@dataclass(frozen=True)
class Need:
    """Weights or a vocabulary that a configuration names: an address, a name on the hub, or a local path."""

    setting: str
    source: str
    kind: Literal["weights", "vocabulary"]

    @property
    def is_of_hub(self) -> bool:
        """Whether it may have to be fetched; anything else is a path of this machine."""
        return self.source.startswith(SCHEME) if self.kind == "weights" else not Path(self.source).is_dir()

    def obtain(self, cache_dir: Path | None = None) -> Path:
        """Where it is on this machine, fetched if need be; `ValueError` if it cannot be had."""
        if self.kind == "weights":
            return local_path(self.source, cache_dir)
        return tokenizer_folder(self.source, cache_dir, setting=self.setting)


def needs_of(config: RunConfig) -> list[Need]:
    """All weights and vocabularies that a configuration names; a checkpoint's own vocabulary is found with it."""
    named = dict.fromkeys(_named(to_dict(config)))
    if config.checkpoint is not None:
        named[Need("checkpoint", config.checkpoint, "weights")] = None
    # Weights first: a vocabulary may lie beside them.
    return sorted(named, key=lambda need: need.kind == "vocabulary")


def _named(section: dict[str, Any], prefix: str = "") -> Iterator[Need]:
    for name, value in section.items():
        setting = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _named(value, f"{setting}.")
        elif isinstance(value, str) and name == TOKENIZER and value != FROM_DATA:
            yield Need(setting, value, "vocabulary")
        elif isinstance(value, str) and value.startswith(SCHEME):
            yield Need(setting, value, "weights")


def obtain_all(config: RunConfig, cache_dir: Path | None = None) -> tuple[dict[Need, Path], dict[Need, ValueError]]:
    """Fetch what `config` needs and does not have: where each is, and why others could not be had."""
    found: dict[Need, Path] = {}
    failed: dict[Need, ValueError] = {}
    for need in needs_of(config):
        try:
            if need.kind == "vocabulary" and _has_own_vocabulary(config, failed, cache_dir):
                continue
            found[need] = need.obtain(cache_dir)
        except ValueError as error:
            failed[need] = error
    return found, failed


def _has_own_vocabulary(config: RunConfig, failed: dict[Need, ValueError], cache_dir: Path | None) -> bool:
    if config.checkpoint is None or Need("checkpoint", config.checkpoint, "weights") in failed:
        return False
    return beside_checkpoint(config.checkpoint, TOKENIZER, cache_dir) is not None


def require_all(config: RunConfig, named_by: str) -> None:
    """Fetch what a run needs, or say in one line all that it lacks.

    Args:
        named_by: what `python -m scripts.fetch` has to be given to fetch the same, such as "--config FILE".

    Raises:
        ValueError: something cannot be had.
    """
    _, failed = obtain_all(config)
    if not failed:
        return

    # A wrong path is not mended by fetching.
    of_paths = [error for need, error in failed.items() if not need.is_of_hub]
    if of_paths or why_unreachable() is None:
        raise next(iter(of_paths or failed.values()))

    listed = " and ".join(f"{need.source} ({need.setting})" for need in failed)
    raise ValueError(
        f"{listed}: not in {constants.HF_HUB_CACHE}, and the hub cannot be reached ({why_unreachable()}); where there "
        f"is a network run `python -m scripts.fetch --to FOLDER {named_by}`, copy FOLDER here and set HF_HOME=FOLDER: "
        "see docs/OFFLINE.md"
    )
