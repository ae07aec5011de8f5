"""Pictures of scores: a PNG that shows what it was given, also where there is nothing to show."""

import io

import numpy as np
from PIL import Image

from earmark.reports.plots import Curve, curves, heat_map


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_curves_of_one_two_and_no_points():
    drawn = [
        curves({"a": Curve(range(1, len(y) + 1), y, y, y)}, "t", "x", "y", log_x=True, log_y=True)
        for y in ([], [1], [1, 2])
    ]
    assert [pixels(png).shape for png in drawn] == [(400, 700, 3)] * 3
    assert len({*drawn}) == 3


def test_a_heat_map_leaves_out_what_is_not_there():
    full, half = np.array([[0.1, 0.9], [0.5, 0.3]]), np.array([[np.nan, 0.9], [0.5, 0.3]])
    white = [(pixels(heat_map(values, "t", "x", "y")) == 255).all(-1).mean() for values in (full, half)]
    assert white[1] > white[0] + 0.05  # a quarter of the map
