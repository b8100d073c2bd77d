"""The records that a preprocessed folder keeps of finished videos, so that an interrupted run resumes.

preprocessing.json   the recipe, and every set of versions that had a hand in it
processed.jsonl      a line a finished video: source, its size and time of change, output, frames, seconds, damage
failures.jsonl       the videos of the last run that could not be processed, and why
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import av

from datasets.transcoding.recipes import Recipe
from datasets.transcoding.transcode import CRF, Written
from engine.folder_lock import only_writer

SETTINGS, PROCESSED, FAILURES = "preprocessing.json", "processed.jsonl", "failures.jsonl"
PARTIAL = ".partial"


@dataclass(frozen=True)
class Video:
    """A file to process, as it was found: both paths are relative, to the source's and to the output's folder."""

    source: str
    output: str
    size: int
    mtime_ns: int


class Ledger:
    """The records of the folder `out`, which is written to by one run at a time.

    ValueError if `out` was made with another recipe, or holds what none of these runs wrote.
    """

    def __init__(self, out: Path, recipe: Recipe) -> None:
        self.out = out
        self.settings = {"codec": "libx264", "crf": CRF, **asdict(recipe)}
        self._versions = self._read_versions()
        self._processed = self._read_processed()

    def is_done(self, video: Video) -> bool:
        """Whether the video's output is there, and made from the source as it is now."""
        record = self._processed.get(video.output)
        output = self.out / video.output
        if record is None or not output.is_file():
            return False
        made_from = Video(*(record[item.name] for item in fields(Video)))
        return made_from == video and output.stat().st_size == record["bytes"]

    def check_names(self, videos: Iterable[Video]) -> None:
        """ValueError if an earlier run gave a video another name: it stood alone then, and now has a namesake."""
        earlier = {record["source"]: output for output, record in self._processed.items()}
        for video in videos:
            output = earlier.get(video.source, video.output)
            if output != video.output and (self.out / output).exists():
                raise ValueError(
                    f"{self.out / output}: was made of {video.source}, which has a namesake now and would become "
                    f"{video.output}; delete the first"
                )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While one may `finish` and `fail`. ValueError if another run is at it."""
        with only_writer(self.out):
            self._write_settings()
            # Rewritten, so that nothing is appended to half a line.
            rows = [json.dumps(record) + "\n" for record in self._processed.values()]
            self._replace(PROCESSED, "".join(rows))
            (self.out / FAILURES).unlink(missing_ok=True)
            shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
            (self.out / PARTIAL).mkdir()
            try:
                yield
            finally:
                shutil.rmtree(self.out / PARTIAL, ignore_errors=True)

    def finish(self, video: Video, temporary: Path, written: Written) -> int:
        """Put a written file into its place and note it; returns its size in bytes."""
        output = self.out / video.output
        output.parent.mkdir(parents=True, exist_ok=True)
        size = temporary.stat().st_size
        # The note comes second: a run that ends in between makes this file again.
        os.replace(temporary, output)
        self._append(PROCESSED, {**asdict(video), "bytes": size, **asdict(written)})
        return size

    def fail(self, video: Video, reason: str) -> None:
        """Note why a video could not be processed; what an earlier state of its source became is removed."""
        (self.out / video.output).unlink(missing_ok=True)
        self._append(FAILURES, {"source": video.source, "reason": reason})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _read_versions(self) -> list[dict[str, str]]:
        path = self.out / SETTINGS
        if not path.is_file():
            # What is there may be the videos themselves, which a run would overwrite.
            if self.out.exists() and any(not name.startswith(".") for name in os.listdir(self.out)):
                raise ValueError(f"{self.out}: holds files, but no {SETTINGS}; name a new folder")
            return []

        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found, versions = record["settings"], record["versions"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); delete {self.out} or name a new folder") from None

        different = [
            f"{key} {found.get(key)} instead of {value}"
            for key, value in self.settings.items()
            if found.get(key) != value
        ]
        if different:
            raise ValueError(f"{self.out}: was made with {', '.join(different)}; delete it or name a new folder")

        return list(versions)

    def _read_processed(self) -> dict[str, dict[str, Any]]:
        path = self.out / PROCESSED
        records: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                record = json.loads(line)
            # A run that was killed may have left half a line; its file is then made again.
            except ValueError:
                continue
            records[record["output"]] = record
        return records

    def _write_settings(self) -> None:
        versions = {"av": av.__version__}
        versions |= {name: ".".join(map(str, number)) for name, number in sorted(av.library_versions.items())}
        if versions not in self._versions:
            self._versions.append(versions)
        record = {"settings": self.settings, "versions": self._versions}
        self._replace(SETTINGS, json.dumps(record, indent=2) + "\n")

    def _replace(self, name: str, text: str) -> None:
        """Write a file of `out`, all of it or nothing."""
        temporary = self.out / f".{name}.new"
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.out / name)
