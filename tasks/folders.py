"""Where a run's annotation files and videos are; either may be elsewhere, and annotation files are then copied here."""

from functools import cache
from pathlib import Path

from configs.schema import RunConfig, SourceConfig
from datasets.annotations.layout import VIDEO_SUFFIXES
from datasets.records import IMAGE_SUFFIXES
from datasets.remote.addresses import Folder, RemoteFolder, folder_of, join
from datasets.remote.folders import annotation_folder
from datasets.remote.settings import use
from datasets.sources import holds_its_videos


def root_folder(config: RunConfig) -> Path:
    """The folder of the annotation files: `data.root`, or copies of what lies at its address."""
    use(config.data.remote)
    folder = folder_of(config.data.root)
    return folder if isinstance(folder, Path) else _copies(folder, _named_files(config))


def forget_copies() -> None:
    """Look again, at the next `root_folder`, whether files at an address have changed."""
    _copies.cache_clear()


@cache
def _copies(folder: RemoteFolder, named: tuple[str, ...]) -> Path:
    return annotation_folder(folder, (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES), named)


def _named_files(config: RunConfig) -> tuple[str, ...]:
    """The files that the configuration names one by one."""
    data = config.data
    named = [data.objects, data.tags, *(source.file for source in data.sources)]
    if data.dataset == "manifest":
        named += [data.eval_manifest, data.test_manifest, *(() if data.sources else (data.manifest,))]
    return tuple(file for file in named if file is not None)


def video_folder(config: RunConfig) -> Folder:
    """The folder, or its address, that relative video paths start from."""
    use(config.data.remote)
    root = folder_of(config.data.root)
    if config.data.dataset == "labelled":  # its table or its folders name the files from here
        return root
    return folder_of(config.data.videos) if config.data.videos else root / "videos"


def media_folder(config: RunConfig, source: SourceConfig) -> Folder:
    """The folder that a source's relative paths start from; ValueError if `media` is set but shards hold the videos."""
    root = root_folder(config)
    if source.media and source.kind == "speech" and (root / source.file).is_dir():
        raise ValueError(f"data.sources: media of {source.file} has no effect, as videos lie in that folder; remove it")
    if source.kind == "pairs" and holds_its_videos(root / source.file):
        if source.media:
            raise ValueError(
                f"data.sources: media of {source.file} has no effect, as shards hold their videos; remove it"
            )
        return folder_of(config.data.root)
    if source.media:
        return folder_of(join(config.data.root, source.media))
    return video_folder(config)
