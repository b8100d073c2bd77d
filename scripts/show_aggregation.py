"""Show what token aggregation does to a video: which frames and patches become one, block by block.

    python -m scripts.show_aggregation video.mp4 --checkpoint outputs/didemo/checkpoint_best
    python -m scripts.show_aggregation video.mp4 --checkpoint C --text "a red circle" aggregation.keep=0.25

OUT then holds

    regions.png      every frame that the encoder is shown, and what is left of it: merged patches in one colour,
                     merged frames in one border
    blocks.png       the same of some frames, block by block
    similarity.png   for each block, how similar those are that merge, and all others
    grounding.png    with --text: the similarity of the phrase with each region
    regions.mp4      all frames one after the other beside their regions, and their similarity with --text

They look like Figures 3, 8 and 4 of TESTA (EMNLP 2023). Settings such as aggregation.keep=0.25 go over the
checkpoint's own. Files of these names that are in OUT are replaced.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from models.api import TrainedModel, load_model
from models.video_encoder import VideoEncoder
from scripts.aggregation_pictures.figures import (
    draw_blocks,
    draw_end,
    draw_grounding,
    draw_similarities,
    film,
    write_figure,
)
from scripts.aggregation_pictures.trace import Trace, grounded, trace_video
from scripts.make_story_videos import write_video

FRAMES_A_SECOND = 4


def trace_of(model: TrainedModel, video: str, start: float | None, end: float | None) -> Trace:
    """A video as the checkpoint sees and encodes it."""
    frames, encoder = model.read_video(video, start, end), model.model.visual_encoder
    with model.computing(), blocks_watched(encoder):
        return trace_video(encoder, frames.to(model.device))


@contextmanager
def blocks_watched(encoder: VideoEncoder) -> Iterator[None]:
    """Show how far the encoder has come, which takes a while on a CPU."""
    with tqdm(total=len(encoder.blocks), desc="encoding", unit="block") as progress, ExitStack() as hooks:

        def block_is_through(*_: Any) -> None:
            progress.update()

        for block in encoder.blocks:
            hooks.callback(block.register_forward_hook(block_is_through).remove)
        yield


def similarity_of(model: TrainedModel, trace: Trace, text: str) -> NDArray[np.float64]:
    """The cosine (T, L) of a phrase with each cell's token."""
    embedding = model.encode_text(text)
    with model.computing():
        return grounded(trace, model.model.vision_proj, embedding)


def write_pictures(
    trace: Trace, out: Path, name: str, text: str | None, similarity: NDArray[np.float64] | None
) -> None:
    """Draw all pictures and the video of a trace into a folder; `similarity` is that of `text`."""
    left = len(np.unique(trace.origins[trace.origins >= 0]))
    title = f"{name}: {trace.origins.size} patches of {len(trace.frames)} frames become {left} tokens"
    pictures: dict[str, Callable[[], Figure]] = {
        "regions": lambda: draw_end(trace, title),
        "blocks": lambda: draw_blocks(trace, title),
        "similarity": lambda: draw_similarities(trace, f"{name}: similarity of tokens"),
    }
    if similarity is not None:
        pictures["grounding"] = lambda: draw_grounding(trace, similarity, f"{name}: “{text}”")
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(pictures) + 1, desc="pictures", unit="file") as progress:
        for stem, draw in pictures.items():
            write_figure(draw(), out / f"{stem}.png")
            progress.update()
        write_video(out / "regions.mp4", film(trace, similarity), FRAMES_A_SECOND)
        progress.update()


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", metavar="VIDEO", help="a video or an image")
    parser.add_argument("--checkpoint", required=True, metavar="C", help="checkpoint folder, file, or hf:// address")
    parser.add_argument("--config", type=Path, help="YAML file of what a checkpoint without one holds")
    parser.add_argument("--text", help="a phrase to look for")
    parser.add_argument("--start", type=float, help="seconds at which the part to show begins")
    parser.add_argument("--end", type=float, help="seconds at which it ends")
    parser.add_argument("--out", type=Path, help="folder for the pictures (outputs/aggregation/NAME OF VIDEO)")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as aggregation.keep=0.25")
    return parser.parse_intermixed_args(arguments)  # settings may stand anywhere


def main(arguments: list[str] | None = None) -> int:
    """Draw what the command line asks for; 2 and one line if that cannot be."""
    options = parse_arguments(arguments)
    name = Path(options.video).stem
    out: Path = options.out or Path("outputs/aggregation") / name
    try:
        if options.text is not None and not options.text.strip():
            raise ValueError("--text: is empty; give a phrase, or leave it away")
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is a file; name a folder with --out")
        model = load_model(options.checkpoint, *options.overrides, config=options.config)
        trace = trace_of(model, options.video, options.start, options.end)
        similarity = None if options.text is None else similarity_of(model, trace, options.text)
        write_pictures(trace, out, name, options.text, similarity)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"pictures of {options.video} are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
