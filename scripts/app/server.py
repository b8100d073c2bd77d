"""The page's addresses: what each of them answers.

Models compute in a thread, one request at a time, so that the page stays alive; videos and stills are served beside.
Everything a request names is looked up among the videos of the index, those that were sent, or pictures that were
drawn: no path comes from outside.
"""

import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from inference.api import TrainedModel
from inference.search.searcher import BEST_FRAMES, Searcher, nothing_matches
from inference.unread_words import unread_words
from scripts.app.boxes import PageBoxes
from scripts.app.checkpoints import OPTION_OF, Checkpoints
from scripts.app.drawings import Drawings
from scripts.app.library import UPLOADS_KEPT, Library, PageVideo
from scripts.app.playback import check_upload, still
from scripts.app.safety import MEBIBYTE, TEXT_CHARACTERS, SafetyMiddleware, read_json, text_of, write_limited
from scripts.app.wording import described, described_hit, named, number_of, part_of

HERE = Path(__file__).parent
MOST_WAITING = 8
"""Requests for a model's work at a time; more are refused, as nobody would wait so long."""
STILLS_AT_ONCE = 2
LISTED = 12
"""Videos of the index that are shown at a time before anything is looked for."""
FAILED_LISTED = 100
"""Names and reasons, at most, of the videos that could not be indexed."""
Result = TypeVar("Result")


class Ending(Exception):
    """The page is being stopped: work whose result nobody will see stops too."""


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What the command line says.

    Attributes:
        host_names: those under which browsers may ask for the page.
        upload_bytes: the most that an upload may have.
        top: how many videos a search shows.
        rerank: how many of them the matching head brings into order; 0 where the checkpoint has none.
        boxes: of the index's videos, if there are any.
    """

    host_names: list[str]
    upload_bytes: int
    top: int
    rerank: int
    boxes: PageBoxes | None = None


def make_app(searcher: Searcher, checkpoints: Checkpoints, settings: PageSettings) -> Starlette:
    """The page, ready to be served; its uploads and copies live as long as it does.

    Setting the event `state.ending` stops copies and searches that are in progress.
    """
    page = Page(searcher, checkpoints, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="testa-page-") as folder:
            page.begin(Path(folder))
            try:
                yield
            finally:
                page.ending.set()

    app = Starlette(
        routes=[
            Route("/", page.home),
            Route("/videos", page.videos),
            Route("/search", page.search, methods=["POST"]),
            Route("/progress", page.progress),
            Route("/uploads", page.upload, methods=["POST"]),
            Route("/videos/{key}/prepare", page.prepare, methods=["POST"]),
            Route("/videos/{key}/file", page.file),
            Route("/videos/{key}/still", page.still),
            Route("/videos/{key}/answer", page.answer, methods=["POST"]),
            Route("/videos/{key}/caption", page.caption, methods=["POST"]),
            Route("/videos/{key}/aggregation", page.aggregation, methods=["POST"]),
            Route("/videos/{key}/boxes", page.boxes, methods=["POST"]),
            Route("/drawings/{key}/{name}", page.drawing),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[
            Middleware(SafetyMiddleware),
            Middleware(TrustedHostMiddleware, allowed_hosts=settings.host_names, www_redirect=False),
        ],
        exception_handlers={HTTPException: _refusal},
        lifespan=lifespan,
    )
    app.state.ending = page.ending
    return app


class Page:
    """The endpoints, one a method; JSON goes in and out, and what is refused says why under `error`."""

    library: Library
    drawings: Drawings
    ending: threading.Event

    def __init__(self, searcher: Searcher, checkpoints: Checkpoints, settings: PageSettings) -> None:
        self.searcher, self.checkpoints, self.settings = searcher, checkpoints, settings
        self.ending = threading.Event()
        self._template = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
        ).get_template("page.html")
        self._computing, self._waiting, self._doing = anyio.Lock(), 0, ""
        self._stills = anyio.CapacityLimiter(STILLS_AT_ONCE)
        for model in checkpoints.all:
            model.tell = self._note

    def begin(self, folder: Path) -> None:
        """Take an empty folder for what comes in and is made."""
        index = self.searcher.index
        paths = list(dict.fromkeys(clip.video for clip in index.clips))
        self.library = Library(paths, folder, index.failed, self.check_running)
        self.drawings = Drawings(folder)

    def check_running(self) -> None:
        """Raise `Ending` once the page is being stopped."""
        if self.ending.is_set():
            raise Ending

    async def home(self, request: Request) -> Response:
        """The page itself."""
        missing, merging = self.checkpoints.missing(), self.checkpoints.that_merges()

        shown = self._template.render(
            total=self.library.size,
            failed=self.library.failed[:FAILED_LISTED],
            failed_count=len(self.library.failed),
            folder=self.searcher.index.folder.absolute().name,
            checkpoint=self.searcher.model.source,
            upload_mib=self.settings.upload_bytes / MEBIBYTE,
            text_characters=TEXT_CHARACTERS,
            listed=LISTED,
            uploads_kept=UPLOADS_KEPT,
            rerank=self.settings.rerank,
            missing={name: (OPTION_OF[name], kind) for name, kind in missing.items()},
            merges=merging is not None,
            grounds=merging is not None and "encode_text" in merging.abilities,
            has_boxes=self.settings.boxes is not None,
        )
        return HTMLResponse(shown)

    async def videos(self, request: Request) -> Response:
        """Some videos of the index, from number `first` on."""
        first = int(number_of(request, "first"))
        return JSONResponse({"videos": [described(video) for video in self.library.of_index(first, LISTED)]})

    async def search(self, request: Request) -> Response:
        """The videos that a text describes best."""
        sent = await read_json(request)
        text = text_of(sent, "text", "description to search for")
        where = text_of(sent, "where", "filter") if sent.get("where") else ""
        begun = monotonic()
        query = (text, self.settings.top, self.settings.rerank, BEST_FRAMES, self.check_running, where)
        hits = await self._compute(lambda: self.searcher.query(*query))
        return JSONResponse(
            {
                "hits": [described_hit(hit, self.library.indexed(hit.video)) for hit in hits],
                "nothing_matches": nothing_matches(hits),
                "notice": await run_sync(unread_words, self.searcher.model, text),
                "seconds": monotonic() - begun,
            }
        )

    async def progress(self, request: Request) -> Response:
        """What the model is doing, in words; empty while it does nothing. It names no file, as others may ask."""
        return JSONResponse({"doing": self._doing})

    async def upload(self, request: Request) -> Response:
        """Take a video, the body, under the `name` it is to be called by."""
        video = self.library.new_upload(Path(request.query_params.get("name", "")).name)
        await write_limited(request.stream(), Path(video.path), self.settings.upload_bytes)
        try:
            await run_sync(check_upload, Path(video.path))
        except ValueError as error:
            Path(video.path).unlink()
            raise HTTPException(415, f"{video.name}: {error}") from None
        self.library.add_upload(video)
        return JSONResponse(described(video), 201)

    async def prepare(self, request: Request) -> Response:
        """Have a video ready to be played, which takes long where it must be copied."""
        video = self._video(request)
        playable = await self._readable(video, lambda: self.library.playable(video))
        return JSONResponse({"media_type": playable.media_type, "is_copy": playable.is_copy})

    async def file(self, request: Request) -> Response:
        """A video as browsers play it, whole or in ranges."""
        video = self._video(request)
        if not self.library.is_prepared(video):
            raise HTTPException(409, f"{video.name}: is not ready to be played; choose it again")
        playable = await self._readable(video, lambda: self.library.playable(video))
        if not playable.path.is_file():
            raise HTTPException(404, f"{video.name}: is not there any more; bring it back or make the index again")
        return FileResponse(playable.path, media_type=playable.media_type, headers={"Cache-Control": "no-cache"})

    async def still(self, request: Request) -> Response:
        """One frame of a video, `at` so many seconds."""
        video, seconds = self._video(request), number_of(request, "at")
        async with self._stills:
            picture = await self._readable(video, lambda: still(video.path, seconds))
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    async def answer(self, request: Request) -> Response:
        """The answer to a question about a video."""
        video, sent, model = self._video(request), await read_json(request), self._model("answer")
        question, part = text_of(sent, "question", "question"), part_of(sent)
        answer = await self._told(video, "answer", lambda: model.answer(video.path, question, *part))
        answer["notice"] = await run_sync(lambda: unread_words(model, question, question=True))
        return JSONResponse(answer)

    async def caption(self, request: Request) -> Response:
        """What is seen in a video."""
        video, sent, model = self._video(request), await read_json(request), self._model("caption")
        return JSONResponse(await self._told(video, "caption", lambda: model.caption(video.path, *part_of(sent))))

    async def aggregation(self, request: Request) -> Response:
        """Pictures of what merges in a video, and where a phrase is, if one is sent."""
        video, sent, model = self._video(request), await read_json(request), self.checkpoints.that_merges()
        if model is None:
            raise HTTPException(409, "no checkpoint of this page merges tokens")
        text = text_of(sent, "text", "phrase") if sent.get("text") else None
        answer = await self._told(
            video, "drawings", lambda: self.drawings.draw(model, str(video.path), video.name, text, *part_of(sent))
        )
        answer["notice"] = None if text is None else await run_sync(unread_words, model, text)
        return JSONResponse(answer)

    async def boxes(self, request: Request) -> Response:
        """A picture of the boxes of a video's objects."""
        video, boxes = self._video(request), self.settings.boxes
        if boxes is None:
            raise HTTPException(409, "this page has no boxes: start it with --objects")
        drawn = await self._readable(video, lambda: self.drawings.draw_boxes(boxes, video))
        return JSONResponse({"drawings": drawn})

    async def drawing(self, request: Request) -> Response:
        """One of the files that `aggregation` and `boxes` name."""
        try:
            path = self.drawings.find(request.path_params["key"], request.path_params["name"])
        except KeyError:
            raise HTTPException(404, "there is no such drawing any more; draw it again") from None
        return FileResponse(path)

    async def _told(self, video: PageVideo, name: str, work: Callable[[], Any]) -> dict[str, Any]:
        begun = monotonic()
        try:
            result = await self._compute(work)
        except HTTPException as error:
            raise HTTPException(error.status_code, named(error.detail, video)) from None
        return {name: result, "seconds": monotonic() - begun}

    async def _compute(self, work: Callable[[], Result]) -> Result:
        """Have a model do something, after those who asked before; HTTPException for what it cannot do."""
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, "too many wait for the model already; try again in a while")
        self._waiting += 1
        try:
            async with self._computing:
                return await run_sync(work)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except Ending:
            raise HTTPException(503, "the page is ending") from None
        finally:
            self._waiting -= 1
            self._doing = ""

    def _note(self, doing: str) -> None:
        self._doing = doing

    async def _readable(self, video: PageVideo, work: Callable[[], Result]) -> Result:
        try:
            return await run_sync(work)
        except ValueError as error:
            raise HTTPException(422, named(str(error), video)) from None
        except Ending:
            raise HTTPException(503, "the page is ending") from None

    def _video(self, request: Request) -> PageVideo:
        try:
            return self.library.find(request.path_params["key"])
        except KeyError:
            raise HTTPException(404, "there is no such video any more; choose or send it again") from None

    def _model(self, ability: str) -> TrainedModel:
        model = self.checkpoints.that_can(ability)
        if model is None:
            kind = self.checkpoints.missing()[ability]
            raise HTTPException(409, f"no checkpoint can {ability}: start the page with {OPTION_OF[ability]}, {kind}")
        return model


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)
