"""Make a story set: small procedural videos with paragraphs, questions and answers.

    python -m scripts.make_story_videos outputs/stories --train 1500 --test 200 --seed 0

A video is a few scenes of coloured shapes that move, grow, spin or blink; its paragraph has one sentence a scene. With
`--kind glimpses` scenes are still and of different lengths, and in each a small coloured shape is seen for a moment
among grey ones. With `--kind flashes` it is smaller, and seen for one or two frames only, among pale ones, while the
camera pans and the light changes; in training videos half of the scenes show it throughout. Some stories come in pairs
of the same scenes in different orders. OUT then holds

    videos/train_00000.mp4 ...              the videos
    train.jsonl  test.jsonl                 {"video", "caption"}, one line a video
    train_qa.jsonl  test_qa.jsonl           {"video", "question", "answer"}, several lines a video
    train_speech.jsonl  test_speech.jsonl   {"video", "words", "duration"}: each scene's sentence as timed words
    train_scenes.jsonl  test_scenes.jsonl   {"video", "caption", "start", "end"}: each scene as a clip of its own; of
                                            flashes those alone that show their shape throughout
    order_pairs.jsonl                       {"video", "caption", "reordered"}: test videos with a partner; "reordered"
                                            is the partner's paragraph, the same sentences in the partner's order
    story_set.json                          the arguments; written last

`--objects 6` adds the exact boxes of the shapes on 6 frames of each video, and which words are nouns and verbs:

    stories.objects                         for `data.objects`, as `scripts.prepare_objects` makes it
    stories.tags                            for `data.tags`, as `scripts.tag_captions` makes it; of any vocabulary
                                            learned from these captions in which each word is one token

`--scene-objects 2` adds both for the scenes, each a clip of its own with boxes on 2 of its frames:

    scenes.objects  scenes.tags             for the videos and captions of train_scenes.jsonl and test_scenes.jsonl

The seed fixes all files to the byte, on one machine with one version of the encoder.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from datasets.annotations.manifest import caption_row
from datasets.stories.boxes import write_boxes
from datasets.stories.finished import option
from datasets.stories.sentences import WORD_TAGS
from datasets.stories.story_set import Kind, StorySet, jobs_of, make
from datasets.tags import save_tags, token_codes
from models.parts.clip.tokenizer import make_clip_tokenizer
from scripts.parts.arguments import at_least

LARGE_VOCABULARY = 5000
"""So many tokens hold every word of the stories whole."""


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = StorySet()
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; must be new, empty or already finished")
    helps = {
        "train": "videos to train on",
        "test": "held-out videos",
        "scenes": "scenes, and sentences, a video",
        "frames_per_scene": "frames a scene, of glimpses on average",
        "size": "height and width in pixels, a multiple of 32",
        "fps": "frames a second",
        "seed": "fixes annotations and pixels",
    }
    for name, text in helps.items():
        parser.add_argument(option(name), type=int, default=getattr(default, name), help=f"{text} (%(default)s)")
    parser.add_argument("--kind", choices=get_args(Kind), default=default.kind, help="of story (%(default)s)")
    parser.add_argument(
        "--pairs",
        type=float,
        default=default.pairs,
        metavar="SHARE",
        help="share of the videos of each split whose scenes another one shows in another order (%(default)s)",
    )
    parser.add_argument("--objects", type=at_least(0), default=0, metavar="FRAMES", help="of a clip, to write boxes of")
    parser.add_argument("--scene-objects", type=at_least(0), default=0, metavar="FRAMES", help="the same of a scene")
    parser.add_argument("--objects-per-frame", type=at_least(1), default=3, help="the most boxes (%(default)s)")
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes (%(default)s)")

    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Makes the story set that the command line asks for; a bad argument ends it with one line and status 2."""
    options = vars(parse_arguments(arguments))
    out, workers = options.pop("out"), options.pop("workers")
    of_videos, of_scenes = options.pop("objects"), options.pop("scene_objects")
    per_frame = options.pop("objects_per_frame")

    try:
        story_set = StorySet(**options)
        made = make(out, story_set, workers)
        jobs = jobs_of(out, story_set) if of_videos or of_scenes else []
        if of_videos:
            made |= write_boxes(out / "stories.objects", jobs, of_videos, per_frame)
            write_tags(out / "stories.tags", [out / "train.jsonl", out / "test.jsonl"])
        if of_scenes:
            made |= write_boxes(out / "scenes.objects", jobs, of_scenes, per_frame, of_scenes=True)
            write_tags(out / "scenes.tags", [out / "train_scenes.jsonl", out / "test_scenes.jsonl"])
    except (ValueError, OSError) as error:
        print(f"make_story_videos: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    print(f"story set {'written' if made else 'already complete, nothing to do'}: {out}")


def write_tags(path: Path, manifests: list[Path]) -> None:
    """Writes which tokens of the captions of manifests are nouns and verbs, where there is no such file yet."""
    if path.is_file():
        return
    captions = []
    for manifest in manifests:
        with manifest.open("rb") as file:
            captions += [caption for line in file for caption in caption_row(line)["caption"]]

    tokenizer = make_clip_tokenizer(captions, LARGE_VOCABULARY)
    tags = {}
    for caption in captions:
        words = tokenizer.words(caption)
        found = [WORD_TAGS.get(word, "OTHER") for word, _ in words]
        tags[caption] = token_codes(found, [count for _, count in words])
    save_tags(path, tags)


if __name__ == "__main__":
    main()
