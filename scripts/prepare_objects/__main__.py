"""Make the file of boxes that goes along with the clips of a data set.

    python -m scripts.prepare_objects detect data/msrvtt.objects --videos data/msrvtt/videos --jobs 8
    python -m scripts.prepare_objects vinvl data/msrvtt.objects --detections tsv_files --label-map label_map.json
    python -m scripts.prepare_objects caches data/msrvtt.objects --files object_attr_*.pth

OUT holds, for every clip, the largest of the surest objects on each of its frames, and the classes that get a
trajectory, by the rules of STOA-VLP. It also says which frames these are; loaders refuse to take others. Until all
clips are done it is OUT.part, and the same command resumes it. What fails is in OUT.failures.jsonl with its reason.

Exit status: 0 if all clips are in OUT, 1 if some failed, 2 if the command itself is wrong.
"""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from datasets.objects.crop import placement
from datasets.objects.store import ObjectStore, StoreWriter
from scripts.parts.box_pictures import save_clip
from scripts.parts.worker_pool import Failure
from scripts.prepare_objects.command import parse
from scripts.prepare_objects.detector import DetectionJob, display_size, read_frames
from scripts.prepare_objects.ways import Way, way_of


def main() -> int:
    """Run the command line; the exit status."""
    command = parse(__doc__)
    try:
        way = way_of(command.request)
        writer = StoreWriter(command.out, way.names, way.settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    failures = fill(writer, way)
    record = command.out.with_name(command.out.name + ".failures.jsonl")
    write_failures(record, failures)
    for name, reason in failures.items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    if failures and not command.allow_failures:
        print(
            f"{len(failures)} of {len(way.names)} clips failed, see {record}. Mend them and run this again, which does "
            "no other clip twice; or add --allow-failures, and loaders leave them out.",
            file=sys.stderr,
        )
        return 1

    writer.finish()
    store = ObjectStore(command.out)
    print(f"{command.out}: {summary(store)}")
    for job in way.jobs[: command.pictures]:
        name = way.names[job.row]
        if name in store:
            draw(store, name, job, command.out.with_name(f"{command.out.stem}_{job.row}.png"))
    return 1 if failures else 0


def fill(writer: StoreWriter, way: Way) -> dict[str, str]:
    """Compute what is missing, row by row as it ends; the reasons of what failed, by name."""
    rows = writer.pending()
    done = len(way.names) - len(rows)
    if done:
        print(f"resuming: {done} of {len(way.names)} clips are there", file=sys.stderr)
    failures: dict[str, str] = {}
    for row, found in tqdm(way.compute(rows), total=len(rows), unit="clip", file=sys.stderr, disable=None):
        if isinstance(found, Failure):
            failures[way.names[row]] = found.reason
            writer.fail(row)
        else:
            writer.put(row, found, way.settings.image_size)
    return failures


def write_failures(path: Path, failures: dict[str, str]) -> None:
    """One line a clip; no file if there are none."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    lines = [json.dumps({"clip": name, "reason": reason}) for name, reason in failures.items()]
    path.write_text("\n".join(lines) + "\n")


def summary(store: ObjectStore) -> str:
    """How much is in a file, in words."""
    clips = [store[name] for name in store.names() if name in store]
    num_boxes = sum(int((clip.classes > 0).sum()) for clip in clips)
    num_trajectories = sum(int((clip.trajectory_ids > 0).sum()) for clip in clips)
    frames = max(len(clips) * store.settings.num_frames, 1)
    return (
        f"{len(clips)} clips, {num_boxes / frames:.1f} boxes a frame, "
        f"{num_trajectories / max(len(clips), 1):.1f} trajectories a clip"
    )


def draw(store: ObjectStore, name: str, job: DetectionJob, path: Path) -> None:
    """Draw the boxes of a clip on the frames that a model would see."""
    width, height = display_size(job.file)
    size, fit = store.settings.image_size, job.settings.fit
    resized_width, resized_height, left, top = placement(width, height, size, fit)
    frames = read_frames(job, resized_width, resized_height)[..., top : top + size, left : left + size]
    pixels = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
    save_clip(path, pixels, store[name], store.settings.classes)


if __name__ == "__main__":
    sys.exit(main())
