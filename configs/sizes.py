"""Byte counts for people to read."""

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_bytes(count: float) -> str:
    """Three digits and a fitting unit: `1.41 MB`; 1000 of a unit make the next."""
    for unit in UNITS[:-1]:
        # A number that rounds to 1000 belongs to the next unit.
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {UNITS[-1]}"
