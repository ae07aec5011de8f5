"""Pictures of scores: curves over rounds, shifts, noise, training steps. PNG, small enough to attach to a test."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """A line of a plot: y over x, and the interval of each y where it has one."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def curves(lines: Mapping[str, Curve], title: str, x_label: str, y_label: str, log_x: bool = False) -> bytes:
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
    if log_x:
        axes.set_xscale("log")
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize="small")
    return png(figure)


def radar(lines: Mapping[str, Mapping[str, float]], title: str) -> bytes:
    """Values from 0 to 1 around a circle, a line a name: name -> axis -> value, the same axes for all. Returns a PNG.

    Raises ValueError for fewer than three axes, or lines with different ones.
    """
    import numpy as np
    from matplotlib.figure import Figure

    axes_of = [tuple(line) for line in lines.values()]
    if not axes_of or len(axes_of[0]) < 3 or len(set(axes_of)) > 1:
        raise ValueError("a radar plot needs lines with the same axes, and at least three of these")
    angles = np.linspace(0, 2 * np.pi, len(axes_of[0]), endpoint=False)
    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    axes = figure.add_subplot(projection="polar")
    for name, line in lines.items():
        values = [*line.values()]
        axes.plot([*angles, angles[0]], [*values, values[0]], marker=".", label=name)
    axes.set_xticks(angles, axes_of[0], fontsize="small")
    axes.set_ylim(0, 1)
    axes.set_title(title)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return png(figure)


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
