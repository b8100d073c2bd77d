"""Where a pass of TVTSv2's encoder goes beyond its matrix products: layers alone, layers in order, whole blocks.

    python -m benchmarks.tvts.products --rounds 6

`python -m benchmarks encoder` counts the limit from each product alone, over and over, with its weights in the cache.
In a pass, weights were last read a whole pass ago, and tokens were written by the layer before. By the processor time
of one thread, block by block, the least of all rounds: other programs on the machine disturb this little.
"""

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.settings import Settings
from benchmarks.table import machine
from benchmarks.tvts.encoder import Work, pixels_of, products_of, tower_of
from engine.host_memory import keep_freed_memory
from models.parts.packed import PackedLinear
from scripts.parts.arguments import at_least

REPEATS = 3
"""So often a layer alone is timed in each round."""
WHOLE = "whole blocks"
FOR_EMBEDDING = "the same for the embedding alone"
ALONE = "linear layers, each alone"


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=6, help="how often each way is timed (default: 6)")
    settings = Settings(None, (), "cpu", 1, parser.parse_args().rounds)
    torch.set_num_threads(settings.threads)
    work = Work("fp32")
    print(f"{machine(settings)}: here processor time, the least of each block", "", sep="\n")

    seconds = measure(settings, work)
    products = products_of(work)
    limit = seconds[ALONE] * products.macs / products.linear_macs
    for name, value in seconds.items():
        print(f"{name:45} {value:.3f} s, {value / seconds[WHOLE]:.3f} of the whole")
    print(
        f"{'limit: layers alone, attention at their rate':45} {limit:.3f} s, {limit / seconds[WHOLE]:.3f} of the whole"
    )


@torch.no_grad()
def measure(settings: Settings, work: Work) -> dict[str, float]:
    """Processor seconds of all blocks, and of their layers in several ways."""
    tower = tower_of(settings, work).fold_for_inference()
    keep_freed_memory()
    ways_of_blocks = _ways(tower, pixels_of(settings, work))
    least = [dict.fromkeys(ways, float("inf")) for ways in ways_of_blocks]
    for _ in range(settings.rounds):
        for ways, own in zip(ways_of_blocks, least, strict=True):
            for name, way in ways.items():
                own[name] = min(own[name], way())
    return {name: sum(own[name] for own in least) for name in least[0]}


def _ways(tower: nn.Module, pixels: Tensor) -> list[dict[str, Callable[[], float]]]:
    """What is timed of each block, by name."""
    ways_of_blocks: list[dict[str, Callable[[], float]]] = []
    blocks = recorded(tower, pixels)
    for index, (block, inputs, calls) in enumerate(blocks):
        plain = [(without_activation(layer), shape) for layer, shape in calls]
        newest = {shape: torch.randn(shape) for _, shape in calls}
        alone: dict[tuple[int, torch.Size], float] = {}

        # The embedding needs the class token alone of the last block.
        class_only = index == len(blocks) - 1
        ways_of_blocks.append(
            {
                WHOLE: partial(_timed, partial(block, *inputs)),
                FOR_EMBEDDING: partial(_timed, partial(block, *inputs, class_only=class_only)),
                "linear layers in order": partial(_timed, partial(_in_order, calls, newest)),
                "the same without activations": partial(_timed, partial(_in_order, plain, newest)),
                ALONE: partial(_each_alone, plain, newest, alone),
            }
        )
    return ways_of_blocks


def recorded(
    tower: nn.Module, pixels: Tensor
) -> list[tuple[nn.Module, tuple[object, ...], list[tuple[PackedLinear, torch.Size]]]]:
    """Each block with its inputs, and its packed layers in the order of their calls, with the shapes of theirs."""
    recorded: list[tuple[nn.Module, tuple[object, ...], list[tuple[PackedLinear, torch.Size]]]] = []

    def note_block(block: nn.Module, inputs: tuple[object, ...]) -> None:
        recorded.append((block, inputs, []))

    def note_layer(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, PackedLinear)
        if recorded:  # not the projection of patches, before the blocks
            recorded[-1][2].append((layer, inputs[0].shape))

    blocks = tower.get_submodule("transformer.resblocks").children()
    handles = [block.register_forward_pre_hook(note_block) for block in blocks]
    layers = [module for module in tower.modules() if isinstance(module, PackedLinear)]
    handles += [layer.register_forward_pre_hook(note_layer) for layer in layers]
    tower(pixels)
    for handle in handles:
        handle.remove()
    return recorded


def _in_order(calls: list[tuple[PackedLinear, torch.Size]], newest: dict[torch.Size, Tensor]) -> None:
    """Each layer reads what was written last in its input's shape, such as by the layer before."""
    written = dict(newest)
    for layer, shape in calls:
        output = layer(written[shape])
        written[output.shape] = output


def _each_alone(
    calls: list[tuple[PackedLinear, torch.Size]],
    inputs: dict[torch.Size, Tensor],
    least: dict[tuple[int, torch.Size], float],
) -> float:
    """The sum of each layer's least time so far, which `least` keeps, called repeatedly."""
    for index, (layer, shape) in enumerate(calls):
        seconds = min(_timed(partial(layer, inputs[shape])) for _ in range(REPEATS))
        least[index, shape] = min(seconds, least.get((index, shape), float("inf")))
    return sum(least.values())


def without_activation(layer: PackedLinear) -> PackedLinear:
    """The layer with the same weights, in the activation's place nothing."""
    plain = copy.copy(layer)
    plain.activation = "none"
    return plain


def _timed(function: Callable[[], object]) -> float:
    """Seconds that this thread computes."""
    start = time.thread_time()
    function()
    return time.thread_time() - start


if __name__ == "__main__":
    main()
