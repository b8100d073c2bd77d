"""Compare the models with stored numbers of the reference implementations.

    python -m tests.parity.check tests/parity/golden

Each NAME.safetensors of the folder is a case: weights, inputs, outputs to match, and sizes in its metadata. Integers
have to be equal and floats within 1e-4. Prints each case's largest difference; exit status 1 if a case differs, 2 if
the folder holds no case or one of an unknown kind.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from torch import Tensor

from tests.parity.cases import Case, Compute, read_case

TOLERANCE = 1e-4

# A system's cases have names that begin alike. Its adapter has KINDS, from the beginning of a name to what computes
# such a case, and `expected_outputs(case)`, the names of the tensors to match. It may have FACTS, from the beginning of
# a name to what lists the facts in the metadata of such a case that are not so here, and RELATIVE, parts of the names
# of outputs whose differences count in proportion to values above 1.
ADAPTERS = {
    "umt_": "tests.parity.umt",
    "tvts_": "tests.parity.tvts",
    "stoa_": "tests.parity.stoa",
    "": "tests.parity.testa",
}


def check_case(path: Path) -> float:
    """The largest difference in a case; `ValueError` if its kind is unknown, infinity if an integer differs."""
    case = read_case(path)
    adapter = importlib.import_module(next(ADAPTERS[start] for start in ADAPTERS if case.name.startswith(start)))
    compute = _compute_of(case, adapter.KINDS)

    found = compute(case.tensors, case.meta)
    expected = adapter.expected_outputs(case)
    if not expected or expected - found.keys():
        raise ValueError(f"{path.name}: nothing here computes {sorted(expected - found.keys()) or 'anything of it'}")
    facts = getattr(adapter, "FACTS", {})
    if any(case.name.startswith(kind) for kind in facts):
        differing = _compute_of(case, facts)(case.tensors, case.meta)
        if differing:
            print(f"{case.name}: other than here: {', '.join(differing)}")
            return float("inf")

    relative = getattr(adapter, "RELATIVE", ())
    return max(
        difference(found[name], case.tensors[name], relative=any(part in name for part in relative))
        for name in expected
    )


def _compute_of(case: Case, kinds: dict[str, Compute]) -> Compute:
    """What computes this case: the kind with the longest name that the case's name begins with."""
    matching = [kind for kind in kinds if case.name.startswith(kind)]
    if not matching:
        raise ValueError(f"{case.name}.safetensors: unknown kind; a name starts with one of {', '.join(kinds)}")
    return kinds[max(matching, key=len)]


def difference(found: Tensor, expected: Tensor, relative: bool = False) -> float:
    """Largest absolute difference, or relative to values above 1; infinity where shapes, or integers, are not equal."""
    if found.shape != expected.shape or found.is_floating_point() != expected.is_floating_point():
        return float("inf")
    if not expected.is_floating_point():
        return 0.0 if bool((found == expected).all()) else float("inf")
    if expected.numel() == 0:
        return 0.0
    scale = expected.abs().clamp(min=1) if relative else 1
    apart = ((found - expected).abs() / scale).max().item()
    return apart if apart == apart else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of NAME.safetensors cases")
    folder = parser.parse_args().folder
    # Some cases need real files, such as a vocabulary; these lie two folders above published cases.
    if (folder.resolve().parents[1] / "tokenizers").is_dir():
        os.environ.setdefault("REAL_DATA", str(folder.resolve().parents[1]))
    cases = sorted(folder.glob("*.safetensors"))
    if not cases:
        print(f"no case (*.safetensors) in {folder}")
        return 2
    status = 0
    for path in cases:
        try:
            apart = check_case(path)
        except ValueError as error:
            print(f"unknown {error}")
            return 2
        print(f"{'ok  ' if apart <= TOLERANCE else 'FAIL'} {path.stem:<32} {apart:.1e}")
        status = max(status, int(apart > TOLERANCE))
    return status


if __name__ == "__main__":
    sys.exit(main())
