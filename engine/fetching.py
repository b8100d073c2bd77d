"""What a configuration needs from the hub, found and fetched before torch is imported and before processes start."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from huggingface_hub import constants

from configs.load import to_dict
from configs.schema import RunConfig
from engine.hub import SCHEME, Checkpoint, local_path, tokenizer_folder, why_unreachable

FROM_DATA = "from_data"
TOKENIZER = "tokenizer"
"""The folder of a checkpoint's own vocabulary."""
VOCABULARY = "model.text.tokenizer"
"""The setting that names a vocabulary."""


@dataclass(frozen=True)
class Need:
    """Weights or a vocabulary that a configuration names: an address, a name on the hub, or a local path."""

    setting: str
    source: str
    kind: Literal["weights", "vocabulary"]

    @property
    def is_of_hub(self) -> bool:
        """Whether it may have to be fetched; anything else is a path on this machine."""
        return self.source.startswith(SCHEME) if self.kind == "weights" else not Path(self.source).is_dir()

    def obtain(self, cache_dir: Path | None = None) -> Path:
        """Its path on this machine, fetched if need be; `ValueError` if it cannot be had."""
        if self.kind == "weights":
            return local_path(self.source, cache_dir)
        return tokenizer_folder(self.source, cache_dir, setting=self.setting)


def needs_of(config: RunConfig) -> list[Need]:
    """All weights and vocabularies that a configuration names; a checkpoint's own vocabulary comes with it.

    Weights come first: a vocabulary may lie beside them.
    """
    named = dict.fromkeys(_addresses(to_dict(config)))
    if config.checkpoint is not None:
        named[Need("checkpoint", config.checkpoint, "weights")] = None

    text = config.model.text
    if text.on_hub and text.tokenizer != FROM_DATA:
        named[Need(VOCABULARY, text.tokenizer, "vocabulary")] = None
    return list(named)


def _addresses(section: dict[str, Any], prefix: str = "") -> Iterator[Need]:
    """The settings, in any section, that are addresses of weights."""
    for name, value in section.items():
        setting = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _addresses(value, f"{setting}.")
        elif isinstance(value, str) and value.startswith(SCHEME):
            yield Need(setting, value, "weights")


class Obtained(NamedTuple):
    """What a run starts from, on this machine: the checkpoint, and the folder of the vocabulary that it names.

    Either is None where the configuration names none, or where it is not needed.
    """

    checkpoint: Checkpoint | None = None
    vocabulary: Path | None = None


def obtain_all(
    config: RunConfig, cache_dir: Path | None = None, checkpoint: Checkpoint | None = None
) -> tuple[dict[Need, Path], dict[Need, ValueError]]:
    """Fetch what `config` needs; returns the paths of what was found, and the errors of what was not.

    `checkpoint` is that of `config`, if the caller has found it already.
    """
    found: dict[Need, Path] = {}
    failed: dict[Need, ValueError] = {}
    for need in needs_of(config):
        if checkpoint is not None and need.kind == "vocabulary" and checkpoint.beside(TOKENIZER) is not None:
            continue

        is_checkpoint = need.setting == "checkpoint"
        try:
            found[need] = checkpoint.path if checkpoint and is_checkpoint else need.obtain(cache_dir)
        except ValueError as error:
            failed[need] = error
        else:
            if is_checkpoint:
                checkpoint = Checkpoint(need.source, found[need])
    return found, failed


def require_all(config: RunConfig, named_by: str, checkpoint: Checkpoint | None = None) -> Obtained:
    """Fetch what a run needs, and return what it starts from.

    Args:
        named_by: what to give `python -m scripts.fetch` to fetch the same, such as "--config FILE".
        checkpoint: that of `config`, if the caller has found it already.

    Raises:
        ValueError: something cannot be had; the text lists all of it on one line.
    """
    found, failed = obtain_all(config, checkpoint=checkpoint)
    if not failed:
        by_setting = {need.setting: path for need, path in found.items()}
        path = by_setting.get("checkpoint")
        return Obtained(None if path is None else Checkpoint(str(config.checkpoint), path), by_setting.get(VOCABULARY))

    # Fetching does not help against a wrong path.
    of_paths = [error for need, error in failed.items() if not need.is_of_hub]
    if of_paths or why_unreachable() is None:
        raise next(iter(of_paths or failed.values()))

    listed = " and ".join(f"{need.source} ({need.setting})" for need in failed)
    raise ValueError(
        f"{listed}: not in {constants.HF_HUB_CACHE}, and the hub cannot be reached ({why_unreachable()}); where there "
        f"is a network run `python -m scripts.fetch --to FOLDER {named_by}`, copy FOLDER here and set HF_HOME=FOLDER: "
        "see docs/OFFLINE.md"
    )
