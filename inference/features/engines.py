"""The engines that an extraction runs on. All of them give the same rows, to the bit."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from inference.features.extract import ExtractionRequest, run

EngineName = Literal["local", "hosts", "ray"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
STALE_AFTER = 60.0


@dataclass(frozen=True)
class Engine:
    """Who does the work.

    Attributes:
        name: `local` is this process, and those that torchrun started with it; `hosts` any processes that are given
            the same command; `ray` actors of Ray.
        stale_after: of `hosts`: seconds without a sign of life after which a process is dead.
        address: of `ray`: of a running cluster; None starts one on this machine.
        actors: of `ray`: how many; None for one a GPU, or one where there is none.
    """

    name: EngineName = "local"
    stale_after: float = STALE_AFTER
    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        if self.name != "hosts" and self.stale_after != STALE_AFTER:
            raise ValueError(f"--stale-after: has no effect on --engine {self.name}; leave it out")
        if self.name != "ray" and (self.address is not None or self.actors is not None):
            raise ValueError(f"--address and --actors: have no effect on --engine {self.name}; leave them out")


def run_on(engine: Engine, request: ExtractionRequest) -> dict[str, Any]:
    """Extract the requested features on an engine and return the counts."""
    if engine.name == "local":
        return run(request)
    if engine.name == "hosts":
        from inference.features.sharing import run_shared

        return run_shared(request, engine.stale_after)

    from inference.features.on_ray import run_on_ray

    return run_on_ray(request, engine.address, engine.actors)
