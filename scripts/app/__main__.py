"""A page to search a folder of videos by what is seen in them, play them, and ask about them.

    python -m scripts.search index VIDEOS --checkpoint outputs/didemo/checkpoint_best --index outputs/index
    python -m scripts.app --index outputs/index
    python -m scripts.app --index outputs/index --answer outputs/testa_qa_f32/checkpoint_best \\
        --caption outputs/testa_caption_f32/checkpoint_best

Then open the address that it prints. The index's own checkpoint searches and draws what merges; questions and captions
need checkpoints that were trained for them. --objects draws the boxes of a file that scripts.prepare_objects has made;
a checkpoint's data.objects, if it is still there, needs no option. Only this machine can open the page; --host 0.0.0.0
lets others in, who can then watch every video of the index: there is no password. Videos that are sent to the page are
removed when it ends, as are copies of those that no browser plays.
"""

import argparse
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from inference.search.searcher import Searcher
from scripts.app.boxes import PageBoxes
from scripts.app.checkpoints import OPTION_OF, Checkpoints
from scripts.app.safety import MEBIBYTE, address_of, bound_socket, host_names, is_loopback
from scripts.app.server import PageSettings, make_app
from scripts.parts.arguments import at_least, positive

CONNECTIONS = 64
SECONDS_TO_FINISH = 2
"""How long a request may still run after the page is stopped."""


class PageServer(uvicorn.Server):
    """A server that stops copies and searches at the first Ctrl-C, instead of waiting for them."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal that ends the page."""
        self.config.app.state.ending.set()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """What page is to be served, and where.

    Attributes:
        index: the folder that is searched. checkpoint: where its checkpoint is now, if it was moved.
        others: checkpoints for what the index's own cannot do, by their names in `OPTION_OF`.
        objects: a file of boxes of the index's videos.
        top: videos that a search shows. rerank: videos to order by matching too; None for `top`.
        names: other names that browsers know this machine by.
    """

    index: Path
    checkpoint: str | None
    others: dict[str, str]
    objects: Path | None
    top: int
    rerank: int | None
    host: str
    port: int
    names: tuple[str, ...]
    max_upload_mib: float


def parse_arguments(arguments: list[str] | None) -> PageRequest:
    """Read the command line; None means the process's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, help="folder that scripts.search has made")
    parser.add_argument("--checkpoint", help="the index's checkpoint, if it is not any more where it was")
    parser.add_argument("--answer", metavar="CHECKPOINT", help="checkpoint that answers questions")
    parser.add_argument("--caption", metavar="CHECKPOINT", help="checkpoint that writes captions")
    parser.add_argument("--objects", type=Path, metavar="FILE", help="boxes of the index's videos, to draw on them")
    parser.add_argument("--top", type=at_least(1), default=12, help="videos that a search shows (%(default)s)")
    parser.add_argument("--rerank", type=at_least(0), metavar="K", help="videos to order by matching too (as --top)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s: only this machine)")
    parser.add_argument("--port", type=at_least(0), default=7860, help="to listen on, 0 for any free one (%(default)s)")
    parser.add_argument("--name", action="append", default=[], help="another name that browsers know this machine by")
    parser.add_argument("--max-upload-mib", type=positive, default=200, help="MiB of a video at most (%(default)s)")
    options = parser.parse_args(arguments)
    if options.port > 65535:
        parser.error(f"argument --port: {options.port}: give 65535 or less")

    return PageRequest(
        index=options.index,
        checkpoint=options.checkpoint,
        others={name: getattr(options, name) for name in OPTION_OF if getattr(options, name) is not None},
        objects=options.objects,
        top=options.top,
        rerank=options.rerank,
        host=options.host,
        port=options.port,
        names=tuple(options.name),
        max_upload_mib=options.max_upload_mib,
    )


def prepare(request: PageRequest) -> tuple[uvicorn.Server, socket.socket]:
    """The server with its models, ready to run, and the socket it listens on. ValueError if that cannot be."""
    bound = bound_socket(request.host, request.port)  # first, as models take long to load
    searcher = Searcher.open(request.index, request.checkpoint)
    checkpoints = Checkpoints(searcher.model, request.others)

    settings = PageSettings(
        host_names=host_names(request.host, bound, list(request.names)),
        upload_bytes=int(request.max_upload_mib * MEBIBYTE),
        top=request.top,
        rerank=_reranked(searcher, request.rerank, request.top),
        boxes=PageBoxes.of(request.objects, checkpoints.all),
    )
    app = make_app(searcher, checkpoints, settings)

    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    return PageServer(config), bound


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until it is stopped; status 2 and one line if it cannot start."""
    request = parse_arguments(arguments)
    try:
        server, bound = prepare(request)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    if not is_loopback(bound):
        print(
            f"warning: whoever reaches this machine can watch all videos of {request.index}, and send videos of up to "
            f"{request.max_upload_mib:g} MiB; there is no password",
            file=sys.stderr,
        )
    print(f"the page is at {address_of(request.host, bound)} (Ctrl-C ends it)", flush=True)

    try:
        server.run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn raises it again after its own shutdown
        pass
    return 0


def _reranked(searcher: Searcher, asked: int | None, top: int) -> int:
    """How many videos are reranked; ValueError where they cannot be."""
    if asked and not searcher.can_rerank:
        raise ValueError("--rerank: has no effect, as the index's checkpoint has no matching head; leave it out")
    return (top if searcher.can_rerank else 0) if asked is None else asked


def leave(status: int) -> NoReturn:
    """End the process, also where a model still computes something in a thread that nobody will see."""
    sys.stdout.flush()
    sys.stderr.flush()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
