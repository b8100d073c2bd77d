"""Tell the nouns and verbs of captions, token by token, for losses that align them with objects and actions.

    python -m scripts.tag_captions captions.tags --tokenizer open_clip_torch --captions FOLDER/train.jsonl --jobs 8
    python -m scripts.tag_captions captions.tags --tokenizer FOLDER --captions train.json \\
        --published postagging_ids_10_new.pth

`--captions` are manifests (.jsonl), or text files of one caption a line. Taggers: `hanta` (the Hanover Tagger; its
English model comes with `pip install HanTa`), or `spacy:MODEL` with a model that you installed. Each word's tag goes to
all tokens that CLIP's tokenizer makes of it. Captions that OUT has already are not tagged again, so an ended run
resumes, and further files can be added.

`--published` takes the tags of STOA-VLP's own file instead; `--captions` is then the JSON list that it was made of,
`[{"video_id": ..., "caption": ...}, ...]`, in its order.

Exit status: 0 if all captions have tags, 1 if some failed, 2 if the command itself is wrong.
"""

import argparse
import sys
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from datasets.tags import NOUN, VERB, TagStore, save_tags
from models.parts.clip.tokenizer import load_clip_tokenizer
from scripts.parts.arguments import at_least
from scripts.parts.worker_pool import JOBS_HELP, Failure, run_each
from scripts.tag_captions.captions import Chunk, captions_of, chunks, published_tags, tag_chunk
from scripts.tag_captions.taggers import tagger

SAVED_EVERY = 100_000
"""Captions; an ended run loses fewer than these."""
TIMEOUT = 600.0


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file to make or add to")
    parser.add_argument("--captions", type=Path, nargs="+", required=True)
    parser.add_argument("--tokenizer", required=True, help="CLIP's vocabulary file, its folder, or open_clip_torch")
    parser.add_argument("--tagger", default="hanta", help="hanta or spacy:MODEL (%(default)s)")
    parser.add_argument("--published", type=Path, help="STOA-VLP's postagging_ids_*.pth, in place of a tagger")
    parser.add_argument("--jobs", type=at_least(0), default=1, help=JOBS_HELP)
    arguments = parser.parse_args()

    try:
        if arguments.published is not None:
            (captions,) = arguments.captions
            tokenizer = load_clip_tokenizer(arguments.tokenizer)
            save_tags(arguments.out, published_tags(arguments.published, captions, tokenizer))
            failures = []
        else:
            work = work_of(arguments.captions, arguments.tokenizer, arguments.tagger, arguments.out)
            failures = tag_all(work, arguments.out, arguments.jobs)
        print(f"{arguments.out}: {summary(TagStore(arguments.out))}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for reason in failures:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def work_of(files: list[Path], tokenizer: str, tagger_name: str, out: Path) -> list[Chunk]:
    """The captions of `files` that `out` lacks, in chunks.

    ValueError if the tokenizer, the tagger or a file of captions is missing or unfit.
    """
    load_clip_tokenizer(tokenizer)
    tagger(tagger_name)

    captions = [caption for path in files for caption in captions_of(path)]
    if out.is_file():
        done = TagStore(out)
        captions = [caption for caption in captions if caption not in done]
    return chunks(captions, tokenizer, tagger_name)


def tag_all(work: list[Chunk], out: Path, jobs: int) -> list[str]:
    """Tag chunk by chunk and save from time to time; why chunks failed."""
    failures: list[str] = []
    found: dict[str, list[int]] = {}
    total = sum(len(chunk.captions) for chunk in work)
    results = run_each(tag_chunk, work, jobs, TIMEOUT)
    with closing(results), tqdm(total=total, unit="caption", file=sys.stderr, disable=None) as progress:
        for chunk, codes in results:
            progress.update(len(chunk.captions))
            if isinstance(codes, Failure):
                failures.append(f"{len(chunk.captions)} captions from {chunk.captions[0]!r} on: {codes.reason}")
                continue
            found |= dict(zip(chunk.captions, codes, strict=True))
            if len(found) >= SAVED_EVERY:
                save_tags(out, found)
                found = {}

    save_tags(out, found)
    return failures


def summary(store: TagStore) -> str:
    """How much is in a file, in words."""
    nouns, verbs, tokens = store.count(NOUN), store.count(VERB), store.num_tokens
    return f"{len(store)} captions, {nouns} nouns and {verbs} verbs among {tokens} tokens"


if __name__ == "__main__":
    sys.exit(main())
