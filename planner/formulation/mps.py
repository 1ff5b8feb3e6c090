"""A linear or mixed-integer model as text that other solvers read (free MPS)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from planner.formulation.linear_model import LinearModel

OBJECTIVE = "objective"


def write_mps(model: LinearModel, path: Path, *, says: Sequence[str] = ()) -> None:
    """Write a model to minimize; ``says`` are comment lines at its head.

    Names are those of the families with the place in their array, ``placed_3_0``.
    """
    rows = _names(model.families, model.row_lower_R.size)
    columns = _names(model.variables, model.cost_V.size)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"* {line}\n" for line in says)
        file.write(f"NAME {path.stem.replace(' ', '_')}\nROWS\n N {OBJECTIVE}\n")
        file.writelines(_row_types(model, rows))
        file.write("COLUMNS\n")
        file.writelines(_entries(model, rows, columns))
        file.write("RHS\n")
        file.writelines(_sides(model, rows))
        file.write("RANGES\n")
        file.writelines(_ranges(model, rows))
        file.write("BOUNDS\n")
        file.writelines(_bounds(model, columns))
        file.write("ENDATA\n")


def _names(families: Iterable[object], count: int) -> list[str]:
    """Name what each family numbers by its place there."""
    names = [""] * count
    for name, index in families.items():  # type: ignore[attr-defined]
        for place, at in np.ndenumerate(index):
            names[at] = "_".join([name, *map(str, place)])
    return names


def _row_types(model: LinearModel, rows: Sequence[str]) -> Iterator[str]:
    for name, lower, upper in _sided(model, rows):
        if lower == upper:
            yield f" E {name}\n"
        elif np.isfinite(upper):
            yield f" L {name}\n"
        else:
            yield f" {'G' if np.isfinite(lower) else 'N'} {name}\n"


def _entries(
    model: LinearModel, rows: Sequence[str], columns: Sequence[str]
) -> Iterator[str]:
    """Coefficients column by column; those of integers stand between markers."""
    order = np.lexsort((model.row_Z, model.column_Z))
    ends = np.searchsorted(model.column_Z[order], np.arange(len(columns) + 1))
    row_Z, value_Z = model.row_Z[order].tolist(), model.value_Z[order].tolist()
    whole, marks = False, 0
    for column, name in enumerate(columns):
        if bool(model.integer_V[column]) != whole:
            whole = not whole
            yield f" M{marks} 'MARKER' '{'INTORG' if whole else 'INTEND'}'\n"
            marks += 1
        yield f" {name} {OBJECTIVE} {float(model.cost_V[column])!r}\n"
        for at in range(ends[column], ends[column + 1]):
            yield f" {name} {rows[row_Z[at]]} {value_Z[at]!r}\n"
    if whole:
        yield f" M{marks} 'MARKER' 'INTEND'\n"


def _sides(model: LinearModel, rows: Sequence[str]) -> Iterator[str]:
    for name, lower, upper in _sided(model, rows):
        side = upper if np.isfinite(upper) else lower
        if np.isfinite(side) and side != 0.0:
            yield f" RHS {name} {side!r}\n"


def _ranges(model: LinearModel, rows: Sequence[str]) -> Iterator[str]:
    for name, lower, upper in _sided(model, rows):
        if lower < upper and np.isfinite(lower) and np.isfinite(upper):
            yield f" RNG {name} {upper - lower!r}\n"


def _bounds(model: LinearModel, columns: Sequence[str]) -> Iterator[str]:
    """Limits of columns; without a word a column is >= 0."""
    limits = zip(columns, model.lower_V.tolist(), model.upper_V.tolist(), strict=True)
    for name, lower, upper in limits:
        if lower == upper:
            yield f" FX BND {name} {lower!r}\n"
            continue
        if lower == -np.inf:
            yield f" MI BND {name}\n"
        elif lower != 0.0:
            yield f" LO BND {name} {lower!r}\n"
        if np.isfinite(upper):
            yield f" UP BND {name} {upper!r}\n"


def _sided(
    model: LinearModel, rows: Sequence[str]
) -> Iterable[tuple[str, float, float]]:
    sides = (model.row_lower_R.tolist(), model.row_upper_R.tolist())
    return zip(rows, *sides, strict=True)
