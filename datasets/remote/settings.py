"""How files from elsewhere are fetched and kept: from the configuration, else from variables of the environment.

Variables reach every process that a run starts, forked or not. What a configuration sets goes over them.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path

from configs.remote import RemoteConfig
from datasets.cache_home import cache_home

GIBIBYTE = 2**30
DEFAULTS = RemoteConfig(cache_dir="", cache_gib=20.0, tries=5, stall_seconds=30.0)


@dataclass(frozen=True)
class RemoteSettings:
    """What a fetch follows.

    Attributes:
        cache_dir: the folder that keeps fetched files; all processes of a machine may share it.
        cache_bytes: the most that they take; the least recently used leave.
        tries: how often a file is asked for until it counts as one that cannot be read.
        stall_seconds: how long to wait for the next byte.
    """

    cache_dir: Path
    cache_bytes: int
    tries: int
    stall_seconds: float


def variable(name: str) -> str:
    """The environment variable that stands for a setting of `data.remote`."""
    return f"VIDEO_{name}".upper()


def use(config: RemoteConfig) -> None:
    """Follow a configuration from now on, in this process and in those that it starts."""
    for field in fields(config):
        value = getattr(config, field.name)
        if value is not None:
            os.environ[variable(field.name)] = str(value)


def current() -> RemoteSettings:
    """The settings in force. ValueError, naming the variable, for one that cannot be."""
    try:
        gib = float(os.environ.get(variable("cache_gib")) or DEFAULTS.cache_gib or 0)
        tries = int(os.environ.get(variable("tries")) or DEFAULTS.tries or 0)
        stall_seconds = float(os.environ.get(variable("stall_seconds")) or DEFAULTS.stall_seconds or 0)
        RemoteConfig(cache_gib=gib, tries=tries, stall_seconds=stall_seconds)
    except ValueError as error:
        raise ValueError(
            f"{variable('cache_gib')}, {variable('tries')} or {variable('stall_seconds')}: {error}"
        ) from None
    folder = os.environ.get(variable("cache_dir"))
    return RemoteSettings(
        Path(folder) if folder else cache_home() / "videos", int(gib * GIBIBYTE), tries, stall_seconds
    )
