"""The named problem sizes of a program, written as one row per size."""

NAMES = ("TINY", "MINI", "SMALL", "MEDIUM", "LARGE", "EXTRALARGE")


def size_table(parameters: str, *rows: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """Sizes by name; `parameters` is space separated, `rows` go from TINY to EXTRALARGE."""
    names = parameters.split()
    return {size: dict(zip(names, row, strict=True)) for size, row in zip(NAMES, rows, strict=True)}
