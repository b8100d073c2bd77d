"""Files elsewhere as files on this machine: fetched, tried again where that may help, and kept in the cache."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePosixPath
from typing import NamedTuple, TypeVar

from datasets.remote.addresses import identity, path_of, shown
from datasets.remote.cache import Cache, Held
from datasets.remote.settings import RemoteSettings, current
from datasets.remote.streams import Body, Range, RemoteError, State, open_body

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try, doubled for each further one, and the most."""
BEAT_SECONDS = 0.5
LOOKED_FOR_AT_ONCE = 16
"""How many files are asked about at the same time."""
FORGET_SECONDS = 60.0
"""For so long a file that used up its tries is not asked for again: a video of many windows waits once."""
LONGEST_SUFFIX = 8

_beat: ContextVar[Callable[[], None] | None] = ContextVar("beat", default=None)
_jitter = random.SystemRandom()
"""Draws nothing from what training draws from."""
_given_up: dict[str, tuple[float, RemoteError]] = {}
"""When and why each address used up its tries; of a process, and of those that it forks."""


class CachedFile(NamedTuple):
    """A file, or a part of one, that was fetched: its name without secrets, its path here, and its state there."""

    name: str
    path: str
    size: int
    state: State

    def __str__(self) -> str:
        return self.name


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """In the block, whoever fetches calls `beat` as it gets on, so a slow fetch is not taken for one that hangs."""
    before = _beat.set(beat)
    try:
        yield
    finally:
        _beat.reset(before)


@contextmanager
def fetched(address: str, part: Range | None = None, expected: State | None = None) -> Iterator[CachedFile]:
    """A file elsewhere, or a part of it, as a file of the cache, which stays there in the block.

    The server is asked for the file's state each time, so one that has changed is fetched again. With `expected`, a
    file in another state is an error. RemoteError, in one line, if the file cannot be had.
    """
    settings = current()
    since, known = _given_up.get(address, (0.0, None))
    if known is not None and time.monotonic() - since < FORGET_SECONDS:
        raise RemoteError(known.reason, passing=True, remedy=known.remedy)
    try:
        held, state = _tried(address, settings, lambda: _fetch(address, part, expected, settings))
    except RemoteError as error:
        if error.passing:
            _given_up[address] = time.monotonic(), error
        raise
    _given_up.pop(address, None)

    try:
        size = held.path.stat().st_size
        name = shown(address) if part is None else f"{shown(address)} ({part.size} bytes from {part.offset})"
        yield CachedFile(name, str(held.path), size, state)
    finally:
        held.release()


def look_at(address: str) -> State:
    """The state of a file elsewhere; RemoteError if it cannot be had."""

    def look(stall_seconds: float) -> State:
        with open_body(address, stall_seconds) as body:
            return body.state

    return tried_with(address, look)


def tried_with(address: str, attempt: Callable[[float], Result]) -> Result:
    """Call `attempt`, with the seconds that it may stall, as often as the settings and its RemoteErrors say."""
    settings = current()
    return _tried(address, settings, lambda: attempt(settings.stall_seconds))


def look_at_all(addresses: Sequence[str]) -> list[State | RemoteError]:
    """The state of each file elsewhere, or why it cannot be had."""

    def look(address: str) -> State | RemoteError:
        try:
            return look_at(address)
        except RemoteError as error:
            return error

    with ThreadPoolExecutor(LOOKED_FOR_AT_ONCE, thread_name_prefix="looking") as pool:
        return list(pool.map(look, addresses))


def _fetch(address: str, part: Range | None, expected: State | None, settings: RemoteSettings) -> tuple[Held, State]:
    """One try: the file of the cache, which holds the bytes of the file's present state."""
    with open_body(address, settings.stall_seconds, part) as body:
        if expected is not None and body.state != expected:
            raise RemoteError(
                "it has changed since it was indexed", passing=False, remedy="start again, which makes the index again"
            )
        key = _key(address, body.state, part)
        try:
            cache = Cache(settings.cache_dir, settings.cache_bytes, _call_beat)
            held = cache.find(key)
            return (held or _store(cache, key, body)), body.state
        except OSError as error:  # what the connection raised is a RemoteError by now
            raise RemoteError(
                f"it cannot be kept in {settings.cache_dir} ({error.strerror})",
                passing=False,
                remedy="make room there, or set data.remote.cache_dir to another folder",
            ) from None


def _store(cache: Cache, key: str, body: Body) -> Held:
    with cache.incoming(key, body.size) as new:
        if isinstance(new, Held):
            return new
        for piece in body.chunks:
            new.write(piece)
            _call_beat()
        return new.finish()


def _key(address: str, state: State, part: Range | None) -> str:
    """A name for a state of a file, or of a part of it; FFmpeg sees the suffix that the file has."""
    place = "" if part is None else f"-{part.offset}-{part.size}"
    suffix = PurePosixPath(path_of(address)).suffix.lower() if part is None else ""
    suffix = suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= LONGEST_SUFFIX else ""
    return f"{identity(address)[:40]}-{state.size}-{state.version:x}{place}{suffix}"


def _tried(address: str, settings: RemoteSettings, attempt: Callable[[], Result]) -> Result:
    """Call `attempt` until it succeeds, or until another try is of no use or one too many."""
    number = 1
    while True:
        _call_beat()
        try:
            return attempt()
        except RemoteError as error:
            which = f"try {number} of {settings.tries}" + ("" if error.passing else ", another is of no use")
            if not error.passing or number >= settings.tries:
                raise RemoteError(
                    f"{error.reason} ({which}); {error.remedy}", passing=error.passing, remedy=error.remedy
                ) from None
            logger.info("%s: %s (%s)", shown(address), error.reason, which)
            wait = error.wait

        # Waiting for different times keeps all workers from asking again at the same moment.
        backoff = min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT) * _jitter.uniform(0.5, 1.5)
        _sleep(max(backoff, wait or 0.0))
        number += 1


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _call_beat()
        time.sleep(min(left, BEAT_SECONDS))


def _call_beat() -> None:
    beat = _beat.get()
    if beat is not None:
        beat()
