"""What goes in and out of the page's addresses as JSON: videos and hits as they are sent, numbers as they are asked."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from inference.search.searcher import Hit
from scripts.app.library import PageVideo


def described(video: PageVideo) -> dict[str, Any]:
    """A video as the page lists it."""
    return {"key": video.key, "name": video.name, "is_image": video.is_image}


def described_hit(hit: Hit, video: PageVideo) -> dict[str, Any]:
    """A video that was found, and how well it matches."""
    return described(video) | {
        "start": hit.start,
        "end": hit.end,
        "score": hit.score,
        "cosine": hit.cosine,
        "match_logit": hit.match_logit,
        "probability": hit.probability,
        "frames": hit.frames,
        "problem": None if hit.problem is None else named(hit.problem, video),
    }


def named(message: str, video: PageVideo) -> str:
    """A message about a file, under the name that people know."""
    return message.replace(str(video.path), video.name)


def number_of(request: Request, name: str) -> float:
    """A number of the address that is 0 or more, 0 where there is none."""
    given = request.query_params.get(name, "0")
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise HTTPException(400, f"{name}: must be a number that is 0 or more")
    return number


def part_of(sent: dict[str, Any]) -> tuple[float | None, float | None]:
    """The part of a video that is asked about, in seconds."""
    part = sent.get("start"), sent.get("end")
    if not all(time is None or isinstance(time, int | float) for time in part):
        raise HTTPException(400, "start and end: must be seconds")
    return part
