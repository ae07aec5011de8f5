"""Pictures of scores: curves over rounds, shifts, noise, training steps. PNG, small enough to attach to a test."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """A line of a plot: y over x, and the interval of each y where it has one."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def curves(
    lines: Mapping[str, Curve], title: str, x_label: str, y_label: str, log_x: bool = False, log_y: bool = False
) -> bytes:
    """Curves by name in one plot, with a legend where there are several. Returns a PNG.

    The figure is drawn without pyplot, whose figures are the process's.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for name, line in lines.items():
        axes.plot(line.x, line.y, marker=".", label=name)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, alpha=0.2)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if any(len(line.x) for line in lines.values()):  # matplotlib cannot scale nothing by its logarithm
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize="small")
    return png(figure)


def heat_map(values: np.ndarray, title: str, x_label: str, y_label: str) -> bytes:
    """A matrix as colours with its numbers, rows downwards; what is not there is left white. Returns a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(axes.imshow(values, cmap="viridis"))
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="x-small", color="white")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
