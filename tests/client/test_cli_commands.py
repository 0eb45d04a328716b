"""What each command asks of a real server, and what it prints of the answer."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from pacesetter import Client, cli
from pacesetter.cli import demo, exits, watching
from pacesetter.cli.context import Context
from serving import RunningService

Run = Callable[..., str]

SPEC = """\
name: placeholder
base_lr: 1e-3
total_steps: 100
schedule: {kind: cosine, total_steps: 100}
labels: {team: vision}
"""


@pytest.fixture(name="run")
def _run(
    server_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return a function that runs a command against the server, and returns what it prints."""
    monkeypatch.setenv("PACESETTER_URL", server_url)
    monkeypatch.setenv("PACESETTER_ACTOR", "ada")

    def run(*arguments: str, status: int = exits.OK) -> str:
        capsys.readouterr()
        code = cli.main([str(each) for each in arguments])
        told = capsys.readouterr()
        assert code == status, told.err
        return told.out if status == exits.OK else told.err

    return run


def answer(run: Run, *arguments: str) -> Any:
    """Return what a command prints with `--json`."""
    return json.loads(run(*arguments, "--json"))


@pytest.fixture(name="trained")
def _trained(client: Client, unique_name: str) -> str:
    """Return a session whose first 20 of 100 steps were trained, with a loss at each."""
    session = client.session(
        unique_name,
        base_lr=0.1,
        total_steps=100,
        schedule={"kind": "cosine", "total_steps": 100},
        max_lookahead=1,
        labels={"test": unique_name},
    )
    for step in range(20):
        session.lr(step)
        session.report(step, loss=1 / (step + 1))
    session.flush()
    return unique_name


def test_a_session_is_created_looked_at_and_put_away(
    run: Run, unique_name: str, tmp_path: Path
) -> None:
    """YAML with exponents is read as numbers; the same file again changes nothing."""
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    for _ in range(2):
        made = answer(run, "create", "-f", file, "--name", unique_name, "-l", f"of={unique_name}")
        assert (made["name"], made["spec"]["base_lr"]) == (unique_name, 0.001)
    assert unique_name in run("ls", "-l", f"of={unique_name}", "-l", "team=vision")
    assert run("ls", f"{unique_name[:-1]}*", "-q") == f"{unique_name}\n"
    assert "cosine from base rate 0.001" in run("show", unique_name)
    assert run("label", unique_name, "team-", "x=1") == f"of={unique_name}, x=1\n"
    assert answer(run, "ls", "-l", f"of={unique_name}", "-l", "team=vision")["sessions"] == []
    run("rm", unique_name, "--yes", status=exits.CONFLICT)
    run("finish", unique_name, "--failed", "-m", "out of memory")
    (row,) = answer(run, "ls", unique_name, "--state", "failed", "--since", "1h")["sessions"]
    assert row["state"] == "failed"
    run("archive", unique_name)
    assert unique_name not in run("ls", "-l", f"of={unique_name}")
    assert "cannot be taken back" in run("rm", unique_name, status=exits.USAGE)
    assert "would be removed" in run("rm", unique_name, "--dry-run")
    run("rm", unique_name, "--yes")
    run("show", unique_name, status=exits.NOT_FOUND)


def test_the_list_says_how_far_and_at_which_rate(run: Run, trained: str) -> None:
    """There is a line for each training, at full width where a program may read it."""
    head, row = run("ls", trained).splitlines()
    assert head.split() == ["name", "state", "step", "done", "lr", "loss", "heard", "ranks"]
    assert row.split()[:6] == [trained, "running", "19", "20%", "0.09135", "0.05"]
    shown = run("show", trained)
    assert "19 of 100 (20%)" in shown
    assert "loss 0.05 (step 19)" in shown


ORDERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "scale": (["0.5", "--group", "lr"], {"factor": 0.5}),
    "set": (["0.01", "--over", "10", "--ease", "cosine"], {"lr": 0.01, "over": 10}),
    "hold": ([], {}),
    "cooldown": (["10", "--to-fraction", "0.1"], {"steps": 10, "to_fraction": 0.1}),
    "rewarm": (["5", "--from", "0.2"], {"steps": 5, "factor": 0.2}),
    "extend": (["+20%", "--policy", "rescale"], {"kind": "retime", "total_steps": 120}),
    "replace": (["linear", "total_iters=9"], {"schedule": {"kind": "linear", "total_iters": 9}}),
    "revert": ([], {}),
    "limit": (["--max-lr", "0.2"], {"max_lr": 0.2}),
}


def test_each_order_says_what_was_typed(run: Run, trained: str) -> None:
    """The pending action has the kind, the numbers, the reason and the author."""
    for at, (kind, (typed, action)) in enumerate(ORDERS.items(), 40):
        given = [each for each in typed if each not in {"--group", "lr"}]
        said = run(kind, trained, *given, "-m", f"try {kind}", "--at", at)
        assert f"holds from step {at} on: " in said
        waiting = answer(run, "orders", trained)["orders"][-1]
        assert (waiting["actor"], waiting["reason"]) == ("ada", f"try {kind}")
        expected = {"kind": kind, **action}
        found = {key: waiting["action"][key] for key in expected}
        if kind == "replace":
            found["schedule"] = {k: found["schedule"][k] for k in expected["schedule"]}
        assert found == expected
        run("cancel", trained, waiting["id"])
    assert "no orders wait" in run("orders", trained)
    run("cancel", trained, 99, status=exits.NOT_FOUND)


def test_limits_are_lifted_by_that_word_alone(run: Run, trained: str) -> None:
    """Since an order without any limit would lift all of them, it must be explicit."""
    run("limit", trained, "-m", "why", status=exits.USAGE)
    run("limit", trained, "--lift", "--max-lr", "0.2", "-m", "why", status=exits.USAGE)
    assert "holds from step" in run("limit", trained, "--lift", "-m", "free again", "--at", 50)


@pytest.mark.parametrize("kind", [*ORDERS, "release", "switch"])
def test_an_order_for_another_revision_is_refused(run: Run, trained: str, kind: str) -> None:
    """Each takes the revision that a dry run has named, and is refused at another one."""
    typed = ORDERS[kind][0] if kind in ORDERS else []
    given = [each for each in typed if each not in {"--group", "lr"}]
    said = run(kind, trained, *given, "-m", "late", "--if-revision", 99, status=exits.CONFLICT)
    assert "revision 99" in said
    assert "no orders wait" in run("orders", trained)


def test_a_dry_run_names_the_revision(run: Run, trained: str) -> None:
    """An order for it is accepted as long as nothing else was decided."""
    shown = answer(run, "scale", trained, "0.5", "--dry-run")["revision"]
    run("scale", trained, "0.5", "-m", "as shown", "--if-revision", shown)
    assert f"--if-revision {shown + 1}" in run("scale", trained, "0.5", "--dry-run")


def test_the_last_change_names_what_waits(run: Run, trained: str) -> None:
    """A pending order is shown beside the last change that has taken effect, or instead of it."""
    run("scale", trained, "0.5", "-m", "later", "--at", 60)
    waits = "order 1 by ada waits for step 60: scaled by 0.5: later"
    said = run("explain", trained, "--last-change", status=exits.REFUSED)
    assert "nothing has changed the plan" in said
    assert waits in " ".join(said.split())
    run("rollback", trained, "--step", 10, "--yes")
    assert waits in " ".join(run("explain", trained, "--last-change").split())
    (order,) = answer(run, "explain", trained, "--last-change")["waiting"]
    assert order["at"] == 60


def test_what_is_advised_for_a_description_is_one(
    run: Run, unique_name: str, tmp_path: Path
) -> None:
    """Wherever it is written, be it in a file that is called JSON."""
    file = tmp_path / "run.json"
    file.write_text("[1]")
    advice = run("create", "-f", file, "--name", unique_name, status=exits.REFUSED)
    file.write_text(advice[advice.index("{") : advice.rindex("}") + 1])
    assert unique_name in run("create", "-f", file, "--name", unique_name)


def test_a_program_gets_its_answer_and_the_file(run: Run, trained: str, tmp_path: Path) -> None:
    """With --json what was to be written is written all the same, and the answer is JSON."""
    run("fork", trained, "--step", 5, "--as", f"{trained}-b")
    for command in (
        ("plot", trained, "--svg"),
        ("diff", trained, f"{trained}-b", "--svg"),
        ("preview", "cosine", "total_steps=50", "--svg"),
        ("history", trained, "-o"),
    ):
        file = tmp_path / command[0]
        assert answer(run, *command, file)
        assert file.stat().st_size > 0


@pytest.mark.parametrize("command", [("export",), ("plot", "--svg"), ("plot", "--png")])
def test_a_missing_folder_is_named(
    run: Run, trained: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """The message names the folder, not the temporary file in it."""
    kind, *option = command
    file = tmp_path / "nowhere" / "record"
    said = " ".join(run(kind, trained, *option, file, status=exits.REFUSED).split())
    assert "there is no folder" in said
    assert ".part" not in said


def test_events_of_an_unknown_kind_are_not_waited_for(run: Run, trained: str) -> None:
    """Following them would never end, so they are refused, of one session and of all."""
    for whose in ([trained], []):
        said = run("events", *whose, "-f", "--kind", "actd", status=exits.REFUSED)
        assert "acted" in said


def test_held_is_released_and_a_stage_is_switched(run: Run, client: Client, trained: str) -> None:
    """Orders that require another one work after it."""
    run("hold", trained, "-m", "wait", "--at", 50)
    run("release", trained, "-m", "go on", "--at", 60)
    staged = f"{trained}-staged"
    law = {"kind": "constant", "factor": 0.1, "total_iters": 5}
    stages = [{"when": {"kind": "below", "value": 0.1}, "schedule": law}]
    controller = {"kind": "switch", "metric": "loss", "stages": stages}
    client.create(staged, base_lr=0.1, controllers=[controller])
    assert "holds from step 0 on" in run("switch", staged, "-m", "enough")


def test_a_dry_run_draws_before_and_after_and_changes_nothing(run: Run, trained: str) -> None:
    """It needs no reason; the numbers are those of the two curves."""
    said = run("scale", trained, "0.5", "--dry-run")
    assert "it would hold from step 20 on" in said
    assert "0.09045 -> 0.04523 at once" in said
    assert "before" in said
    assert any("\u2801" <= each <= "\u28ff" for each in said)
    assert answer(run, "orders", trained)["orders"] == []
    dry = answer(run, "extend", trained, "200", "--dry-run")
    assert dry["effective_step"] == dry["before"]["steps"][0]


def test_an_order_wants_a_reason_and_sense(run: Run, trained: str) -> None:
    """Without a terminal `-m` gives the reason; an order that makes no sense is a usage error."""
    assert "-m" in run("scale", trained, "0.5", status=exits.USAGE)
    run("cooldown", trained, "-m", "x", status=exits.USAGE)
    run("set", trained, "0.1", "--over", "soon", "-m", "x", status=exits.USAGE)
    for much in ("+much", "+nan%", "+inf%", "+1e400%"):
        run("extend", trained, much, "-m", "x", status=exits.USAGE)
    run("label", trained, "team", status=exits.USAGE)
    refused = run("scale", trained, "0", "-m", "x", status=exits.REFUSED)
    assert refused.startswith("pacesetter: /factor: ")
    error = json.loads(run("show", "nobody-has-this", "--json", status=exits.NOT_FOUND))["error"]
    assert (error["exit"], error["code"]) == (exits.NOT_FOUND, "session_not_found")


def test_the_same_key_orders_once(run: Run, trained: str) -> None:
    """A script may retry."""
    order = ("scale", trained, "0.5", "-m", "x", "--key", "k-1")
    first = answer(run, *order)
    assert answer(run, *order)["id"] == first["id"]


def test_why_is_said_for_now_and_for_the_last_change(run: Run, trained: str) -> None:
    """Without a step it explains the newest trained one; `--last-change` finds what counts."""
    assert "at step 19" in run("explain", trained)
    assert "nothing has changed" in run("explain", trained, "--last-change", status=exits.REFUSED)
    run("scale", trained, "0.5", "-m", "the loss rises")
    with Client() as trainer:
        trainer.session(trained, resume="continue").lr(20)
    said = run("explain", trained, "--last-change")
    assert said.startswith("step 20: lr 0.09135 -> 0.04523\n")
    assert "the loss rises" in said
    run("explain", trained, "--last-change", "--step", "3", status=exits.USAGE)


def test_the_record_is_told(run: Run, trained: str, tmp_path: Path) -> None:
    """Ranks, history and its CSV have every step and every value, to the bit."""
    assert "1 of 1 ranks seen" in run("ranks", trained)
    shown = run("history", trained).splitlines()
    assert shown[0].split() == ["step", "lr", "loss"]
    file = tmp_path / "history.csv"
    run("history", trained, "-o", file)
    assert run("history", trained, "--csv") == file.read_text()
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [int(row["step"]) for row in rows] == list(range(20))
    record = answer(run, "history", trained, "--points", 1000)
    assert [float(row["lr"]) for row in rows] == record["series"]["lr"]
    assert [float(row["loss"]) for row in rows] == record["metrics"]["loss"]


def test_events_are_lines_of_json_for_a_program(run: Run, trained: str) -> None:
    """Each event is a separate document, so the stream can be read as it arrives."""
    lines = run("events", trained, "--json").splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(len(lines)))
    assert run("events", trained, "--kind", "noticed") == ""
    run("events", trained, "--kind", "no-such-kind", status=exits.REFUSED)


def test_a_session_that_begins_later_is_drawn_from_there(
    run: Run, client: Client, unique_name: str
) -> None:
    """One that took over a training in its middle: its first step is where curves begin."""
    law = {"kind": "cosine", "total_steps": 100}
    session = client.session(unique_name, base_lr=0.1, schedule=law, start_step=50)
    session.lr(50)
    session.restart(50)
    for drawn in (run("show", unique_name), run("plot", unique_name)):
        assert "forecast" in drawn
    context = Context(client.url, as_json=False)
    watching._Seen(context, unique_name).look()
    context.close()
    assert answer(run, "plot", unique_name)["forecast"]["steps"][0] == 50
    other = f"{unique_name}-b"
    client.create(other, base_lr=0.1, schedule=law)
    curves = answer(run, "diff", unique_name, other)["curves"]
    assert [curves[each]["steps"][0] for each in (unique_name, other)] == [50, 0]
    assert "step 50" in run("explain", unique_name, "--last-change").splitlines()[0]


def test_no_step_at_all_is_not_taken_for_none_said(run: Run, trained: str) -> None:
    """An end or a length of 0 is refused, and not left out."""
    run("plot", trained, "--end", 0, status=exits.USAGE)
    run("fork", trained, "--step", 5, "--as", f"{trained}-b")
    run("diff", trained, f"{trained}-b", "--end", 0, status=exits.USAGE)
    run("preview", "cosine", "total_steps=50", "--steps", 0, status=exits.REFUSED)


def _printing_to(output: int, server_url: str, command: str) -> tuple[int, str]:
    """Run a command on an output; return its status, and what it complains of."""
    done = subprocess.run(
        [sys.executable, "-m", "pacesetter.cli", command],
        env={**os.environ, "PACESETTER_URL": server_url, "PYTHONUNBUFFERED": ""},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(output)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["ls", "doctor", "version"])
def test_a_reader_may_have_enough(command: str, server_url: str) -> None:
    """A reader may stop early, as `head` does: that is no failure, and prints nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    assert _printing_to(writing, server_url, command) == (exits.OK, "")


@pytest.mark.parametrize("command", ["ls", "doctor", "version"])
def test_an_output_that_is_full_is_told(command: str, server_url: str) -> None:
    """A disk, say: in two lines, without a traceback."""
    status, told = _printing_to(os.open("/dev/full", os.O_WRONLY), server_url, command)
    assert status == exits.REFUSED
    assert [line[:12] for line in told.splitlines()] == ["pacesetter: ", "  -> see whe"]


def test_events_of_all_sessions_are_told(run: Run, trained: str) -> None:
    """They are filtered by pattern, author and label; each names its session and a cursor."""
    run("scale", trained, "0.5", "-m", "the loss rises", "--at", 50)
    run("fork", trained, "--step", 5, "--as", f"{trained}-b")
    chosen = ("events", "-l", f"test={trained}", "--json")
    found = [json.loads(line) for line in run(*chosen).splitlines()]
    assert {each["session"] for each in found} == {trained, f"{trained}-b"}
    rest = run(*chosen, "--after", found[0]["cursor"]).splitlines()
    assert [json.loads(line) for line in rest] == found[1:]
    (line,) = run("events", f"{trained[:-1]}*", "--actor", "ada", "--kind", "ordered").splitlines()
    assert line.split()[2] == trained
    assert "the loss rises" in line
    run("events", trained, "--actor", "ada", status=exits.USAGE)
    run("events", trained, "--after", "now", status=exits.USAGE)


def test_watching_ends_with_the_training(run: Run, trained: str) -> None:
    """Without a terminal, each look is a line, and the last one says how it ended."""
    run("finish", trained, "-m", "done")
    line = run("watch", trained)
    assert line.startswith("step 19  lr 0.09135  loss 0.05")
    assert json.loads(run("watch", trained, "--json"))["state"] == "finished"


def test_curves_are_drawn(run: Run, trained: str, tmp_path: Path) -> None:
    """They are drawn in the terminal, as SVG and as PNG; two trainings are compared."""
    plotted = run("plot", trained, "--metric", "loss", "--log")
    assert "▲ now" in plotted
    assert "forecast" in plotted
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    run("plot", trained, "--svg", svg, "--png", png)
    assert svg.read_text().count("<polyline") == 2
    assert png.read_bytes().startswith(b"\x89PNG")
    run("plot", trained, "--series", "momentum", status=exits.USAGE)
    other = f"{trained}-b"
    run("fork", trained, "--step", 10, "--as", f"{other},{other}2")
    assert "described alike" in run("diff", other, f"{other}2")
    longer = tmp_path / "longer.json"
    longer.write_text('{"total_steps": 200}')
    run("fork", trained, "--step", 10, "--as", f"{other}3", "-f", longer)
    found = answer(run, "diff", other, f"{other}3")
    assert found["differences"] == [{"pointer": "/total_steps", "before": 100, "after": 200}]
    assert set(found["curves"]) == set(found["metrics"]) == {other, f"{other}3"}
    assert len(found["metrics"][other]["steps"]) == 10
    assert "loss" in run("diff", other, f"{other}3")


def test_a_fork_is_drawn_before_it_is_made(run: Run, trained: str, tmp_path: Path) -> None:
    """The curve is shown before and after; nothing is created until the option is left out."""
    longer = tmp_path / "longer.yaml"
    longer.write_text("total_steps: 200\nschedule: {kind: cosine, total_steps: 200}\n")
    asked = ("fork", trained, "--step", 10, "--as", f"{trained}-x", "-f", longer)
    drawn = run(*asked, "--dry-run")
    assert f"would share the steps of {trained} before 10" in drawn
    assert "nothing was made" in drawn
    assert "before" in drawn
    told = json.loads(run(*asked, "--dry-run", "--json"))
    assert told["forks"] == [f"{trained}-x"]
    assert told["after"]["steps"][0] == 10
    run("show", f"{trained}-x", status=exits.NOT_FOUND)
    run(*asked)
    run("show", f"{trained}-x")


def test_a_plan_fills_its_picture(run: Run, client: Client, unique_name: str) -> None:
    """A fast trainer was handed out steps far past the end of its plan: they are not drawn."""
    client.create(unique_name, base_lr=0.1, schedule={"kind": "cosine", "total_steps": 20})
    for start in (0, 21):  # no window extends past the end of a plan
        window = {"attempt": 1, "want": {"start": start, "count": 60}, "progress": {"step": 0}}
        asked = httpx.post(f"{client.url}/v1/sessions/{unique_name}/sync", json=window)
    assert asked.raise_for_status().json()["horizon"] > 40
    client.finish(unique_name, step=20)
    steps = answer(run, "plot", unique_name)["forecast"]["steps"]
    assert (steps[0], steps[-1]) == (0, 19)


def test_schedules_are_tried_before_they_are_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unique_name: str
) -> None:
    """They are drawn, linted and recommended; a recommendation can be created from stdin."""
    assert answer(run, "preview", "cosine", "total_steps=50")["series"]["lr"][0] == 1.0
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    assert "0.001" in run("preview", "-f", file)
    assert "nothing found" in run("lint", "-f", file)
    run("lint", "-f", file, "--steps", "0", status=exits.REFUSED)
    found = answer(run, "recommend", "transformer", "1000", "--name", unique_name)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(found["spec"])))
    run("create", "-f", "-")
    assert unique_name in run("recommend", "transformer", "1000", "--name", unique_name)
    for text, status in (
        ("[1]", exits.REFUSED),
        ('{"a": ', exits.REFUSED),
        ("a: [", exits.REFUSED),
    ):
        file.write_text(text)
        run("create", "-f", file, status=status)
    run("create", "-f", tmp_path / "nowhere", status=exits.REFUSED)
    file.write_text("base_lr: 0.1\nloss: x\n")
    run("create", "-f", file, "--name", f"{unique_name}-b", status=exits.USAGE)


def test_a_training_goes_back(run: Run, trained: str) -> None:
    """It goes back into a new attempt; steps that no trainer holds can be taken back."""
    assert "shut out" in run("rollback", trained, "--step", 10, status=exits.USAGE)
    assert "attempt 2" in run("rollback", trained, "--step", 10, "--yes")
    assert answer(run, "show", trained)["status"]["attempt"] == 2
    curious = f"{trained}-b"
    with Client() as client:
        client.create(curious, base_lr=0.1)
        client._json("POST", f"/v1/sessions/{curious}/sync", body={"step": 5})
    assert "steps 0 to 5 would be open again" in run("take-back", curious, "--dry-run")
    run("take-back", curious, "-m", "only looked")


def test_a_record_moves_through_a_pipe(
    run: Run, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`export -` writes what `import -` reads; a replay has the same values."""
    file = tmp_path / "record.jsonl"
    run("export", trained, file)
    with file.open("rb") as record:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(record))
        assert "sealed up to step 20" in run("import", "-", "--name", f"{trained}-b")
    run("replay", trained, "--as", f"{trained}-c")
    with Client() as client:
        was, now = (client.lr(each, 0, count=20) for each in (trained, f"{trained}-c"))
    assert was["series"] == now["series"]
    assert json.loads(run("replay", trained))["base_lr"] is not None


def test_templates_are_published_and_used(run: Run, unique_name: str, tmp_path: Path) -> None:
    """A template gets a version, is used under it, compared and deprecated."""
    name = unique_name[:60]
    spec = {"base_lr": 0.1, "schedule": {"kind": "cosine", "total_steps": {"$": "total"}}}
    body = {"name": name, "parameters": {"total": {"example": 100}}, "spec": spec}
    file = tmp_path / "template.json"
    for base in (0.1, 0.2):
        file.write_text(json.dumps({**body, "spec": {**spec, "base_lr": base}}))
        run("template", "publish", "-f", file)
    assert f"{name}@2" in run("template", "ls")
    assert "total" in run("template", "show", f"{name}@1")
    (found,) = answer(run, "template", "diff", name, "1", "2")["differences"]
    assert (found["before"], found["after"]) == (0.1, 0.2)
    made = answer(run, "template", "use", f"{name}@1", "--name", unique_name, "--set", "total=50")
    assert made["spec"]["schedule"]["total_steps"] == 50
    run("template", "deprecate", name, "-m", "old", status=exits.USAGE)
    run("template", "deprecate", f"{name}@1", "-m", "old")
    assert "deprecated: old" in run("template", "ls", name)
    run("template", "show", f"{name}@9", status=exits.NOT_FOUND)


def test_tokens_are_made_and_say_who_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret is printed alone, for a pipe; its holder is the author, whoever is logged in."""
    admin = "an-admins-token-of-tests"
    with RunningService(tmp_path / "own.db", admin_token=admin) as service:
        monkeypatch.setenv("PACESETTER_URL", service.url)
        assert cli.main(["ls"]) == exits.NOT_ALLOWED
        monkeypatch.setenv("PACESETTER_TOKEN", admin)
        capsys.readouterr()
        asked = ["token", "create", "night-shift", "--role", "operator", "--scope", "team-*"]
        assert cli.main([*asked, "--expires", "12h"]) == exits.OK
        secret = capsys.readouterr().out.strip()
        assert cli.main(["token", "ls"]) == exits.OK
        listed = capsys.readouterr().out.splitlines()
        (row,) = [line.split() for line in listed if "night-shift" in line]
        assert row[1:4] == ["night-shift", "operator", "team-*"]
        with Client(service.url) as client:
            client.create("team-a", base_lr=0.1)
        monkeypatch.setenv("PACESETTER_TOKEN", secret)
        assert cli.main(["scale", "team-a", "0.5", "-m", "calm"]) == exits.OK
        assert cli.main(["token", "ls"]) == exits.NOT_ALLOWED
        capsys.readouterr()
        assert cli.main(["events", "team-a", "--kind", "ordered"]) == exits.OK
        assert "night-shift ordered" in capsys.readouterr().out
        monkeypatch.setenv("PACESETTER_TOKEN", admin)
        assert cli.main(["token", "revoke", row[0]]) == exits.OK
        assert cli.main(["token", "revoke", row[0]]) == exits.NOT_FOUND


def test_the_demo_trains_until_it_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """It serves, trains, prints the address, and leaves nothing behind."""
    assert cli.main(["demo", "--seconds", "1"]) == 0
    said = capsys.readouterr().out
    assert "export PACESETTER_URL=http://127.0.0.1:" in said
    assert len({plan.name for plan in demo.PLANS}) == 3
