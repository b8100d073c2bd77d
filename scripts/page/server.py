"""The page's addresses: what each of them answers.

Models compute in a thread, one request at a time, so that the page stays alive; videos and stills are served beside.
Everything a request names is looked up among the videos of the index, those that were sent, or pictures that were
drawn: no path comes from outside.
"""

import tempfile
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

from models.api import TrainedModel
from scripts.page.checkpoints import OPTION_OF, Checkpoints
from scripts.page.drawings import Drawings
from scripts.page.library import Library, PageVideo
from scripts.page.playback import check_upload, still
from scripts.page.safety import MEBIBYTE, TEXT_CHARACTERS, SafetyMiddleware, read_json, text_of, write_limited
from scripts.video_search.searcher import Hit, Searcher

HERE = Path(__file__).parent
MOST_WAITING = 8
"""Requests for a model's work at a time; more are refused, as nobody would wait so long."""
STILLS_AT_ONCE = 2
LISTED = 12
"""Videos of the index that are shown at a time before anything is looked for."""
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """What the command line says.

    Attributes:
        host_names: those under which browsers may ask for the page.
        upload_bytes: the most that an upload may have.
        top: how many videos a search shows.
        rerank: how many of them the matching head brings into order; 0 where the checkpoint has none.
    """

    host_names: list[str]
    upload_bytes: int
    top: int
    rerank: int


def make_app(searcher: Searcher, checkpoints: Checkpoints, settings: PageSettings) -> Starlette:
    """The page, ready to be served; its uploads and copies live as long as it does."""
    page = Page(searcher, checkpoints, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="testa-page-") as folder:
            page.begin(Path(folder))
            yield

    return Starlette(
        routes=[
            Route("/", page.home),
            Route("/videos", page.videos),
            Route("/search", page.search, methods=["POST"]),
            Route("/uploads", page.upload, methods=["POST"]),
            Route("/videos/{key}/prepare", page.prepare, methods=["POST"]),
            Route("/videos/{key}/file", page.file),
            Route("/videos/{key}/still", page.still),
            Route("/videos/{key}/answer", page.answer, methods=["POST"]),
            Route("/videos/{key}/caption", page.caption, methods=["POST"]),
            Route("/videos/{key}/aggregation", page.aggregation, methods=["POST"]),
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


class Page:
    """The endpoints, one a method; JSON goes in and out, and what is refused says why under `error`."""

    library: Library
    drawings: Drawings

    def __init__(self, searcher: Searcher, checkpoints: Checkpoints, settings: PageSettings) -> None:
        self.searcher, self.checkpoints, self.settings = searcher, checkpoints, settings
        self._template = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined
        ).get_template("page.html")
        self._computing, self._waiting = anyio.Lock(), 0
        self._stills = anyio.CapacityLimiter(STILLS_AT_ONCE)

    def begin(self, folder: Path) -> None:
        """Take an empty folder for what comes in and is made."""
        clips = self.searcher.index.clips
        self.library = Library(list(dict.fromkeys(clip.video for clip in clips)), folder)
        self.drawings = Drawings(folder)

    async def home(self, request: Request) -> Response:
        """The page itself."""
        missing, merging = self.checkpoints.missing(), self.checkpoints.that_merges()
        shown = self._template.render(
            total=self.library.size,
            folder=self.searcher.index.folder.absolute().name,
            checkpoint=self.searcher.model.source,
            upload_mib=self.settings.upload_bytes / MEBIBYTE,
            text_characters=TEXT_CHARACTERS,
            listed=LISTED,
            rerank=self.settings.rerank,
            missing={name: (OPTION_OF[name], kind) for name, kind in missing.items()},
            merges=merging is not None,
            grounds=merging is not None and "encode_text" in merging.abilities,
        )
        return HTMLResponse(shown)

    async def videos(self, request: Request) -> Response:
        """Some videos of the index, from number `first` on."""
        first = int(_number(request, "first"))
        return JSONResponse({"videos": [_described(video) for video in self.library.of_index(first, LISTED)]})

    async def search(self, request: Request) -> Response:
        """The videos that a text describes best."""
        text = text_of(await read_json(request), "text", "description to search for")
        begun = monotonic()
        hits = await self._compute(lambda: self.searcher.query(text, self.settings.top, self.settings.rerank))
        return JSONResponse({"hits": [self._hit(hit) for hit in hits], "seconds": monotonic() - begun})

    async def upload(self, request: Request) -> Response:
        """Take a video, the body, under the `name` it is to be called by."""
        video = self.library.new_upload(Path(request.query_params.get("name", "")).name)
        await write_limited(request.stream(), video.path, self.settings.upload_bytes)
        try:
            await run_sync(check_upload, video.path)
        except ValueError as error:
            video.path.unlink()
            raise HTTPException(415, f"{video.name}: {error}") from None
        self.library.add_upload(video)
        return JSONResponse(_described(video), 201)

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
        video, seconds = self._video(request), _number(request, "at")
        async with self._stills:
            picture = await self._readable(video, lambda: still(video.path, seconds))
        return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    async def answer(self, request: Request) -> Response:
        """The answer to a question about a video."""
        video, sent, model = self._video(request), await read_json(request), self._model("answer")
        question, part = text_of(sent, "question", "question"), _part(sent)
        return await self._told(video, "answer", lambda: model.answer(video.path, question, *part))

    async def caption(self, request: Request) -> Response:
        """What is seen in a video."""
        video, sent, model = self._video(request), await read_json(request), self._model("caption")
        return await self._told(video, "caption", lambda: model.caption(video.path, *_part(sent)))

    async def aggregation(self, request: Request) -> Response:
        """Pictures of what merges in a video, and where a phrase is, if one is sent."""
        video, sent, model = self._video(request), await read_json(request), self.checkpoints.that_merges()
        if model is None:
            raise HTTPException(409, "no checkpoint of this page merges tokens")
        text = text_of(sent, "text", "phrase") if sent.get("text") else None
        return await self._told(
            video, "drawings", lambda: self.drawings.draw(model, str(video.path), video.name, text, *_part(sent))
        )

    async def drawing(self, request: Request) -> Response:
        """One of the files that `aggregation` names."""
        try:
            path = self.drawings.find(request.path_params["key"], request.path_params["name"])
        except KeyError:
            raise HTTPException(404, "there is no such drawing any more; draw it again") from None
        return FileResponse(path)

    async def _told(self, video: PageVideo, name: str, work: Callable[[], Any]) -> Response:
        begun = monotonic()
        try:
            result = await self._compute(work)
        except HTTPException as error:
            raise HTTPException(error.status_code, _named(error.detail, video)) from None
        return JSONResponse({name: result, "seconds": monotonic() - begun})

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
        finally:
            self._waiting -= 1

    async def _readable(self, video: PageVideo, work: Callable[[], Result]) -> Result:
        try:
            return await run_sync(work)
        except ValueError as error:
            raise HTTPException(422, _named(str(error), video)) from None

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

    def _hit(self, hit: Hit) -> dict[str, Any]:
        video = self.library.indexed(hit.video)
        return _described(video) | {
            "start": hit.start,
            "end": hit.end,
            "score": hit.score,
            "cosine": hit.cosine,
            "match_logit": hit.match_logit,
            "frames": hit.frames,
            "problem": None if hit.problem is None else _named(hit.problem, video),
        }


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _described(video: PageVideo) -> dict[str, Any]:
    return {"key": video.key, "name": video.name, "is_image": video.is_image}


def _named(message: str, video: PageVideo) -> str:
    """What is said of a file, by the name that people know."""
    return message.replace(str(video.path), video.name)


def _number(request: Request, name: str) -> float:
    """A number of the address that is 0 or more, 0 where there is none."""
    given = request.query_params.get(name, "0")
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise HTTPException(400, f"{name}: must be a number that is 0 or more")
    return number


def _part(sent: dict[str, Any]) -> tuple[float | None, float | None]:
    """The part of a video that is asked about, in seconds."""
    part = sent.get("start"), sent.get("end")
    if not all(time is None or isinstance(time, int | float) for time in part):
        raise HTTPException(400, "start and end: must be seconds")
    return part
