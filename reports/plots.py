"""Pictures of scores: curves over rounds, shifts, noise, training steps, bitrate; and scores against each other."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    """Curves by name in one plot, with a legend where there are several. Returns a PNG."""
    return png(curves_figure(lines, title, x_label, y_label, log_x, log_y))


def curves_figure(
    lines: Mapping[str, Curve], title: str, x_label: str, y_label: str, log_x: bool = False, log_y: bool = False
) -> Figure:
    """The figure of `curves`, drawn without pyplot, whose figures are the process's."""
    figure, axes = _figure()
    for name, line in lines.items():
        axes.plot(line.x, line.y, marker=".", label=name)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, alpha=0.2)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if any(len(line.x) for line in lines.values()):  # matplotlib cannot scale nothing by its logarithm
        axes.set(xscale="log" if log_x else "linear", yscale="log" if log_y else "linear")
        if log_x:
            _plain_numbers(axes)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize="small")
    return figure


def _plain_numbers(axes: Axes) -> None:
    """1, 2, 5, 10 along a logarithmic axis, rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def bubbles(
    points: Mapping[str, tuple[float, float, float]], title: str, x_label: str, y_label: str, note: str = ""
) -> Figure:
    """Points by name, each with its name beside it: (x, y, area), areas in any unit, the largest drawn the same."""
    figure, axes = _figure()
    largest = max((area for _, _, area in points.values()), default=1.0)
    for name, (x, y, area) in points.items():
        axes.scatter([x], [y], s=[20 + 600 * area / largest], alpha=0.5)
        axes.annotate(name, (x, y), fontsize="small", xytext=(4, 4), textcoords="offset points")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.supxlabel(note, fontsize="small")
    return figure


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    return figure, figure.add_subplot()


def heat_map(values: np.ndarray, title: str, x_label: str, y_label: str, names: Sequence[str] = ()) -> bytes:
    """A matrix as colours with its numbers, rows downwards; what is not there is left white. Returns a PNG.

    names: of rows and columns alike.
    """
    figure, axes = _figure()
    figure.colorbar(axes.imshow(values, cmap="viridis"))
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize="x-small", color="white")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if names:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="x-small")
        axes.set_yticks(range(len(names)), names, fontsize="x-small")
    return png(figure)


def radar(lines: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Values from 0 to 1 around a circle, a line a name: name -> axis -> value, the same axes for all.

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
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an <svg> element, for a page that holds several: their inner names are kept apart."""
    import matplotlib

    written = io.StringIO()
    axes = figure.axes[0]
    with matplotlib.rc_context({"svg.hashsalt": axes.get_title(), "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue().partition("<svg")[1] + written.getvalue().partition("<svg")[2]
