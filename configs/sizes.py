"""Numbers of bytes as people read them."""

UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_bytes(count: float) -> str:
    """Three digits and the unit that fits: `1.41 MB`; a thousand of one unit is the next."""
    for unit in UNITS[:-1]:
        # What would be rounded to 1000 belongs to the next unit.
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {UNITS[-1]}"
