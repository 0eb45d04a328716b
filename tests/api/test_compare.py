"""Comparisons over HTTP against a real service: curves side by side, and differences of specs."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import open_http, quick

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(name="http")
def _http(server_url: str) -> Iterator[httpx.Client]:
    """Return a client of the shared service."""
    with open_http(server_url) as client:
        yield client


@pytest.fixture(name="names")
def _names(http: httpx.Client, unique_name: str) -> list[str]:
    """Return two trainings of 100 and 200 steps, half of which are sealed."""
    names = [f"{unique_name}-{total}" for total in (100, 200)]
    for name, total in zip(names, (100, 200), strict=True):
        cosine = {"kind": "cosine", "total_steps": total}
        spec = {"name": name, "base_lr": 1 / total, "schedule": cosine}
        http.post("/v1/sessions", json=spec).raise_for_status()
        reports = [{"step": 3, "metrics": {"loss": 0.5, f"of{total}": 1.0}}]
        for body in (quick(0, total // 2), {"reports": reports}):
            http.post(f"/v1/sessions/{name}/sync", json=body).raise_for_status()
    return names


def compared(http: httpx.Client, names: list[str], **params: Any) -> dict[str, Any]:
    """Compare sessions."""
    answer = http.get("/v1/compare", params={"session": names, **params}).raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def test_specs_differ_where_it_is_said(http: httpx.Client, names: list[str]) -> None:
    """Each difference is a pointer with the value of each; the names do not count as one."""
    found = compared(http, names)["differences"]
    assert [each["pointer"] for each in found] == ["/base_lr", "/schedule/total_steps"]
    assert found[1]["values"] == dict(zip(names, (100, 200), strict=True))


def test_laws_of_another_kind_differ_as_a_whole(http: httpx.Client, names: list[str]) -> None:
    """Their parameters mean other things, so they are not compared one by one."""
    other = f"{names[0]}-other"
    spec = {"name": other, "base_lr": 0.01, "schedule": {"kind": "constant"}}
    http.post("/v1/sessions", json=spec).raise_for_status()
    [found] = compared(http, [names[0], other])["differences"]
    assert found["pointer"] == "/schedule"
    assert {each["kind"] for each in found["values"].values()} == {"cosine", "constant"}


def test_curves_are_those_of_the_histories(http: httpx.Client, names: list[str]) -> None:
    """By step they stand where they were trained; sessions may have different metrics."""
    one, other = compared(http, names)["sessions"]
    history = http.get(f"/v1/sessions/{names[0]}/history").json()
    assert one["series"] == history["series"]
    assert one["metrics"] == history["metrics"]
    assert one["places"] == one["steps"]
    assert (set(one["metrics"]), set(other["metrics"])) == ({"loss", "of100"}, {"loss", "of200"})
    [some, _] = compared(http, names, metrics="of100")["sessions"]
    assert set(some["metrics"]) == {"of100"}


def test_fractions_lay_plans_of_any_length_over_each_other(
    http: httpx.Client, names: list[str]
) -> None:
    """Half of each plan is sealed, so both end at the same place."""
    for each in compared(http, names, by="fraction")["sessions"]:
        assert each["places"][-1] == pytest.approx(0.5, abs=0.011)
        assert each["places"][0] == 0


def test_a_picture_has_a_line_for_each_session(http: httpx.Client, names: list[str]) -> None:
    """One panel has both learning rates, in two colours."""
    params = {"session": names, "by": "fraction", "format": "svg"}
    answer = http.get("/v1/compare", params=params)
    assert answer.headers["content-type"].startswith("image/svg+xml")
    lines = list(ET.fromstring(answer.text).iter(f"{SVG}polyline"))
    assert len({each.attrib["stroke"] for each in lines}) == 2


def test_what_cannot_be_compared_is_said(
    http: httpx.Client, names: list[str], unique_name: str
) -> None:
    """Refused are too few names, a name twice, unknown ones, and fractions of an endless plan."""
    endless = f"{unique_name}-endless"
    http.post("/v1/sessions", json={"name": endless, "base_lr": 0.1}).raise_for_status()
    refused = {
        (names[0],): 422,
        (names[0], names[0]): 422,
        (names[0], "none-of-that-name"): 404,
    }
    for some, status in refused.items():
        assert http.get("/v1/compare", params={"session": some}).status_code == status
    params = {"session": [names[0], endless], "by": "fraction"}
    [mistake] = http.get("/v1/compare", params=params).json()["errors"]
    assert mistake["parameter"] == "by"
    assert endless in mistake["detail"]
