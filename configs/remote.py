"""How videos that lie elsewhere are fetched and kept."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How files at addresses (s3, gs, http, https, hf) are fetched; none of it changes what is learned.

    `cache_dir` keeps what was fetched, up to `cache_gib`; the least recently used files leave. A file is asked for up
    to `tries` times while what failed may pass, and a connection without a byte for `stall_seconds` counts as failed.

    Where a setting is not given, its environment variable (`VIDEO_CACHE_DIR`, `VIDEO_CACHE_GIB`, `VIDEO_TRIES`,
    `VIDEO_STALL_SECONDS`) is taken, then the default: 20 GiB in the user's cache folder, 5 tries, 30 seconds.
    """

    cache_dir: str | None = None
    cache_gib: float | None = None
    tries: int | None = None
    stall_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("cache_gib", "tries", "stall_seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"data.remote.{name}: {value} is not above 0")
