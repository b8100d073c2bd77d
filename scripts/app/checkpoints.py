"""Which checkpoint does what on the page."""

from inference.api import TrainedModel, load_model
from inference.trained import CAN_DO
from tasks.base import progress_bar

OPTION_OF = {"answer": "--answer", "caption": "--caption"}
"""What the index's own checkpoint may lack, and the option that names one that has it."""


class Checkpoints:
    """The index's checkpoint, and others for what it lacks.

    Args:
        search: the index's.
        others: an address of a checkpoint by its ability, of OPTION_OF; ValueError if it has not got that.
    """

    def __init__(self, search: TrainedModel, others: dict[str, str]) -> None:
        self.search = search
        loaded: dict[str, TrainedModel] = {}
        for address in progress_bar(dict.fromkeys(others.values()), "checkpoints"):
            loaded[address] = load_model(address)
        self._others = {ability: loaded[address] for ability, address in others.items()}
        for ability, model in self._others.items():
            if ability not in model.abilities:
                raise ValueError(
                    f"{OPTION_OF[ability]} {model.source}: a checkpoint of {model.config.task} cannot {ability}; give "
                    f"{CAN_DO[ability]}"
                )

    def that_can(self, ability: str) -> TrainedModel | None:
        """The checkpoint named for an ability, the index's if it has it, or None."""
        if ability in self._others:
            return self._others[ability]
        return self.search if ability in self.search.abilities else None

    @property
    def all(self) -> list[TrainedModel]:
        """Every checkpoint, the index's before others."""
        return [self.search, *self._others.values()]

    def that_merges(self) -> TrainedModel | None:
        """The first whose tokens merge, the index's before others."""
        return next((model for model in self.all if model.config.aggregation.reducer != "none"), None)

    def missing(self) -> dict[str, str]:
        """For each of OPTION_OF that no checkpoint can do, which kind of checkpoint can."""
        return {ability: CAN_DO[ability] for ability in OPTION_OF if self.that_can(ability) is None}
