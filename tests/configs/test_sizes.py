"""A size never loses its digits to a unit that does not fit it."""

import pytest

from configs.sizes import format_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (49_152, "49.2 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (1_412_345, "1.41 MB"),
        (4_610_000_000, "4.61 GB"),
        (2.5e12, "2.5 TB"),
        (3e18, "3e+03 PB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text
