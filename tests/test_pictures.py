"""Pictures of curves are well-formed, complete and safe."""

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from pacesetter_service import pictures

SVG = "{http://www.w3.org/2000/svg}"


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50))
def test_any_curve_can_be_drawn(values: list[float]) -> None:
    """Every value becomes a point inside the frame, constants and zeros included."""
    root = ET.fromstring(pictures.draw(range(len(values)), {"lr": values}))
    [line] = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert len(points) == len(values)
    assert all(0 <= x <= pictures.WIDTH and 0 <= y <= pictures.HEIGHT for x, y in points)


def test_each_series_has_its_panel() -> None:
    """Series stand below each other, each under its name."""
    root = ET.fromstring(pictures.draw([0, 5], {"head.lr": [1, 2], "momentum": [0.9, 0.8]}))
    titles = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "title"]
    assert titles == ["head.lr", "momentum"]
    assert root.attrib["viewBox"].endswith(f" {2 * pictures.HEIGHT}")


def test_names_can_not_break_out() -> None:
    """What looks like markup in a name is text."""
    drawn = pictures.draw([0, 1], {"<script>alert(1)</script>": [1.0, 2.0]})
    assert "<script>" not in drawn
