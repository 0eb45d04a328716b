"""Pictures of curves are well-formed, complete and safe."""

import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from pacesetter_service.insight import pictures, run_pictures

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
    """Markup in a name is text."""
    drawn = pictures.draw([0, 1], {"<script>alert(1)</script>": [1.0, 2.0]})
    assert "<script>" not in drawn


losses = st.floats()


@example([(0.0, 0.0, 0.0), (924954.0, 0.0, 1e100)], 801312.0)  # no loss to draw at any rate
@given(st.lists(st.tuples(st.floats(0, 1e9), losses, losses), max_size=50), st.floats(1e-9, 1e9))
def test_any_range_test_can_be_drawn(points: list[tuple[float, float, float]], rate: float) -> None:
    """Rates of any order and losses of any kind become points inside the frame."""
    lr, loss, smoothed = ([point[index] for point in points] for index in range(3))
    drawn = pictures.draw_range_test(
        title="<loss>",
        lr=lr,
        loss=loss,
        smoothed=smoothed,
        suggestions={"a": rate, "b": None, "<c>": rate},
        proposal=rate,
    )
    root = ET.fromstring(drawn)
    for line in root.iter(f"{SVG}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= pictures.WIDTH
            assert 0 <= y <= pictures.SWEEP_HEIGHT


def test_suggestions_at_one_rate_stand_above_each_other() -> None:
    """No dot hides another one, and each is in the legend."""
    lr = [10.0**power for power in range(-5, 0)]
    drawn = pictures.draw_range_test(
        title="loss",
        lr=lr,
        loss=[1.0] * 5,
        smoothed=[1.0] * 5,
        suggestions=dict.fromkeys("abc", 1e-3),
        proposal=None,
    )
    dots = [(c.get("cx"), float(c.get("cy", 0))) for c in ET.fromstring(drawn).iter(f"{SVG}circle")]
    on_curve = sorted(y for x, y in dots[:3])
    assert len({x for x, _ in dots[:3]}) == 1
    assert all(upper - lower >= 2 * pictures.DOT for lower, upper in pairwise(on_curve))
    assert len(dots) == 6


# Trainings ----------------------------------------------------------------------------------------


@given(
    st.lists(st.none() | st.floats(), min_size=1, max_size=30),
    st.lists(st.integers(-5, 40), max_size=30),
    st.floats(-5, 40),
    st.floats(-5, 40),
)
def test_any_training_can_be_drawn(
    values: list[float | None], steps: list[int], trained: float, sealed: float
) -> None:
    """Whatever was measured, and wherever marks and bounds lie, all of it is inside the picture."""
    line = run_pictures.Line("<loss>", range(len(values)), values)
    panels = [run_pictures.Panel("lr", [line], rates=True), run_pictures.Panel("loss", [line] * 3)]
    marks = [run_pictures.Mark(step, "order", "<why> & so on " * 20) for step in steps]
    bounds = run_pictures.Bounds(trained, sealed)
    root = ET.fromstring(run_pictures.draw_run("<run>", panels, marks=marks, bounds=bounds))
    height = float(root.attrib["viewBox"].split()[-1])
    for each in root.iter(f"{SVG}polyline"):
        for point in each.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= pictures.WIDTH
            assert 0 <= y <= height
    drawn = [each for each in root.iter(f"{SVG}line") if "mark" in each.get("class", "")]
    assert len(drawn) == sum(0 <= step < len(values) for step in steps)
