"""The record of a session as columns, for NumPy, pandas and Arrow, where they are installed."""

from __future__ import annotations

import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pacesetter._errors import misfit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    import pyarrow as pa  # type: ignore[import-untyped,unused-ignore]

NAN = float("nan")


@dataclass(frozen=True)
class Columns(Mapping[str, Any]):
    """What was trained with, beside what was measured: one column each, one row per step.

    `columns["lr"]` is a NumPy array of float64, `columns["step"]` one of int64. Each array is made
    on access, so that a machine without NumPy can hold, iterate and pass on the rest. In a metric's
    column, NaN stands where nothing was measured; `measured` tells it from a NaN that was.

    Attributes:
        session: The session.
        attempt: The attempt whose record it is.
        start: The first step of the record.
        end: The first step after the record.
        trained_until: The first of its steps that was not trained, as far as is known. The steps
            from there on are sealed, as trainers fetch ahead.
        steps: The steps that are shown.
        series: For each series, its sealed values, to the bit.
        metrics: For each metric, its values over all ranks; with `readings=True` those of each rank
            too, as `loss[3]`. None stands where nothing was measured.
    """

    session: str
    attempt: int
    start: int
    end: int
    trained_until: int
    steps: Sequence[int] = field(repr=False)
    series: Mapping[str, Sequence[float]] = field(repr=False)
    metrics: Mapping[str, Sequence[float | None]] = field(repr=False)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column as an array: int64 of the steps, float64 of all others.

        Raises:
            KeyError: There is no such column.
            ImportError: NumPy is not installed.
        """
        numpy: Any = _library("numpy")
        if name == "step":
            return _fixed(numpy.array(self.steps, dtype=numpy.int64))
        if name in self.series:
            return _fixed(numpy.array(self.series[name], dtype=numpy.float64))
        column = self.metrics.get(name)
        if column is None:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self)}")
        numbers = [NAN if each is None else each for each in column]
        return _fixed(numpy.array(numbers, dtype=numpy.float64))

    def measured(self, name: str) -> npt.NDArray[np.bool_]:
        """Return at which of the steps a metric was measured.

        Raises:
            KeyError: There is no such metric.
            ImportError: NumPy is not installed.
        """
        numpy: Any = _library("numpy")
        if name not in self.metrics:
            raise KeyError(f"there is no metric {name!r}; there are {', '.join(self.metrics)}")
        return _fixed(numpy.array([each is not None for each in self.metrics[name]], dtype=bool))

    def __iter__(self) -> Iterator[str]:
        yield from ("step", *self.series, *self.metrics)

    def __len__(self) -> int:
        """Return the number of columns; `len(columns.steps)` is that of the rows."""
        return 1 + len(self.series) + len(self.metrics)

    def to_pandas(self) -> pd.DataFrame:
        """Return a data frame whose index is the step.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas: Any = _library("pandas")
        index = pandas.Index(self["step"], name="step")
        return pandas.DataFrame({name: self[name] for name in self if name != "step"}, index=index)

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table, in which null stands where nothing was measured.

        Raises:
            ImportError: PyArrow is not installed.
        """
        arrow: Any = _library("pyarrow")
        columns: dict[str, Any] = {"step": arrow.array(self.steps, arrow.int64())}
        columns |= {name: arrow.array(each, arrow.float64()) for name, each in self.series.items()}
        columns |= {name: arrow.array(each, arrow.float64()) for name, each in self.metrics.items()}
        return arrow.table(columns)


def joined(session: str, answers: Sequence[Mapping[str, Any]]) -> Columns:
    """Join the pieces of a record, each of which begins where the one before ends.

    Raises:
        InvalidAnswerError: They are not such pieces.
    """
    try:
        first, last = answers[0], answers[-1]
        series: dict[str, array.array[float]] = {name: array.array("d") for name in first["series"]}
        steps = array.array("q")
        metrics: dict[str, list[float | None]] = {}
        for piece in answers:
            before = len(steps)
            steps.extend(piece["steps"])
            for name, values in piece["series"].items():
                series[name].extend(values)
            for name, column in _metrics(piece).items():
                known = metrics.setdefault(name, [None] * before)
                known.extend(None if each is None else float(each) for each in column)
            for column in metrics.values():
                column.extend([None] * (len(steps) - len(column)))
        lengths = {*map(len, series.values()), *map(len, metrics.values())}
        if not lengths <= {len(steps)}:
            raise misfit("the server answered columns of different lengths")
        return Columns(
            session,
            int(last["attempt"]),
            int(first["start"]),
            int(last["end"]),
            int(last["trained_until"]),
            steps,
            series,
            metrics,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise misfit(f"the server answered no record ({type(error).__name__}: {error})") from error


def _metrics(piece: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the columns of what was measured, those of single ranks after their metric's."""
    found: dict[str, Sequence[Any]] = {}
    readings = piece.get("readings") or {}
    for name, column in piece["metrics"].items():
        found[name] = column
        ranks = readings.get(name) or {}
        found |= {f"{name}[{rank}]": ranks[rank] for rank in sorted(ranks, key=int)}
    return found


def _fixed(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array that cannot be written to: the columns are what was recorded."""
    column.flags.writeable = False
    return column


def _library(name: str) -> Any:  # noqa: ANN401 - a module
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"columns as arrays, frames or tables need {name}, which is not installed: run"
            f" `pip install {name}`, or read `steps`, `series` and `metrics` of the columns"
        ) from error
