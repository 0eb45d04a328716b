"""`RemoteLR` on several ranks: one asks, all follow, and all fail together or none does."""

import itertools
import threading
from multiprocessing.managers import SyncManager
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from torch import distributed
from torch.distributed.distributed_c10d import Backend, BackendConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.testing._internal.distributed.fake_pg import FakeStore

from distributed import scenarios
from distributed.launch import Outcome, on_ranks, values
from pacesetter import Client, OutagePolicy
from pacesetter._torch.ranks import device_kind, timeout_of
from pacesetter.torch import RemoteLR
from proxy import Proxy
from serving import PATIENCE, RunningService

COSINE = {"kind": "cosine", "total_steps": 1000}


def _curve(client: Client, name: str, count: int, series: str = "lr") -> list[list[str]]:
    rates = client.forecast(name, count=count, points=count)["series"][series]
    return [[rate.hex()] for rate in rates]


def _alike(outcomes: list[Outcome]) -> Any:
    """Return the result of all ranks, which must be the same."""
    found = values(outcomes)
    assert all(each == found[0] for each in found)
    return found[0]


# -- windows --


@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_apply_the_same_bits(
    size: int, server_url: str, client: Client, unique_name: str
):
    """Ranks that never call the server hold its values at each step, whatever their pace."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    pauses = [0.0, 0.001, 0.0]
    outcomes = on_ranks(size, scenarios.follow, server_url, unique_name, 300, pauses)
    assert _alike(outcomes) == _curve(client, unique_name, 300)


def test_ranks_may_drive_different_groups(server_url: str, client: Client, unique_name: str):
    """Stages of a pipeline have different param groups; shared values are the same."""
    groups = {"body": {"base_lr": 0.1}, "head": {"base_lr": 0.5}}
    client.create_session(unique_name, schedule=COSINE, groups=groups)
    first, second = values(on_ranks(2, scenarios.drive_parts, server_url, unique_name))
    body = _curve(client, unique_name, 200, "body.lr")
    head = _curve(client, unique_name, 200, "head.lr")
    assert first == body
    assert second == [[*pair[0], *pair[1]] for pair in zip(body, head, strict=True)]


def test_groups_join_on_all_ranks_alike(server_url: str, client: Client, unique_name: str):
    """They join within a window too, where ranks do not meet; so does a rebuilt scheduler."""
    groups = {"head": {"base_lr": 0.1}, "body": {"base_lr": 0.01}}
    client.create_session(unique_name, schedule=COSINE, groups=groups)
    seen, attempt = _alike(on_ranks(2, scenarios.add_groups, server_url, unique_name))
    head = [rate for [rate] in _curve(client, unique_name, 65, "head.lr")]
    body = [rate for [rate] in _curve(client, unique_name, 65, "body.lr")]
    own = (7.0).hex()
    steps = [*range(5), *range(6, 10), *range(11, 65)]
    assert seen == [[head[at], body[at], own][: 1 + (at > 5) + (at > 10)] for at in steps]
    assert attempt == 1


def test_a_part_of_the_ranks_may_train(server_url: str, client: Client, unique_name: str):
    """In a group the first of its ranks asks, whatever its global number."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    outcomes = on_ranks(3, scenarios.lead_a_group, server_url, unique_name)
    assert _alike(outcomes[1:]) == _curve(client, unique_name, 200)


def test_every_rank_may_ask_by_itself(server_url: str, client: Client, unique_name: str):
    """With `mode="each"` all have a connection, yet a restart is one attempt."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1, ranks=2)
    first, second, attempt = _alike(on_ranks(2, scenarios.ask_each, server_url, unique_name))
    curve = _curve(client, unique_name, 150)
    assert (first, second, attempt) == (curve[:100], curve[50:], 2)


def test_broadcasting_needs_a_group(client: Client, unique_name: str):
    """A caller that requires it before the group exists is told what to call."""
    session = client.create_session(unique_name, base_lr=0.1)
    for options, message in (
        ({"mode": "broadcast"}, "init_process_group"),
        ({"mode": "all"}, "choose from auto, broadcast, each"),
        ({"reports": "all"}, "choose from first, mean, each"),
    ):
        with pytest.raises(ValueError, match=message):
            RemoteLR(scenarios.sgd(0.1), session, **options)  # type: ignore[arg-type]


def test_ranks_that_race_are_alike(server_url: str, client: Client, unique_name: str):
    """Ranks of a DDP model that each call the server get sealed values, so they stay one model."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1, ranks=4)
    seen, _ = _alike(on_ranks(4, scenarios.race, server_url, unique_name))
    assert [[rate] for rate in seen] == _curve(client, unique_name, 200)
    readings = client.history(unique_name, end=200, readings=True)["readings"]["loss"]
    assert {rank: column.count(None) for rank, column in readings.items()} == dict.fromkeys(
        "0123", 0
    )


def test_two_groups_follow_two_sessions(server_url: str, client: Client, unique_name: str):
    """Each half of the ranks has its own leader, step and attempts."""
    names = [f"{unique_name}-{half}" for half in "ab"]
    for name, rate in zip(names, (0.1, 0.3), strict=True):
        client.create_session(name, schedule=COSINE, base_lr=rate)
    outcomes = on_ranks(4, scenarios.train_in_halves, server_url, names)
    curves = [_curve(client, name, 200) for name in names]
    assert _alike(outcomes[:2]) == (curves[0][:150], curves[0][150:200], 1)
    assert _alike(outcomes[2:]) == (curves[1][:150], curves[1][50:100], 2)
    means = [client.history(name)["metrics"]["loss"] for name in names]
    assert [[each for each in mean if each is not None] for mean in means] == [[0.5], [2.5]]


# -- groups --


@pytest.mark.parametrize(
    ("backends", "kind"),
    [
        ("cpu:gloo,cuda:gloo", "cpu"),
        ("cuda:nccl", "cuda"),
        ("cpu:gloo,cuda:nccl", "cpu"),
        ("cuda:nccl,cpu:gloo", "cpu"),
        ("cpu:gloo", "cpu"),
        ("cpu:mpi,cuda:mpi", "cpu"),
        ("CPU:FOO,CUDA:FOO,XPU:FOO", "cpu"),
        ("xpu:xccl", "xpu"),
        ("hpu:hccl", "hpu"),
    ],
)
def test_collectives_take_the_cpu_where_they_can(backends: str, kind: str):
    """An accelerator waits for nothing that a group can do without it."""
    assert device_kind(backends) == kind


@pytest.mark.parametrize("backend", ["nccl", "cpu:gloo,cuda:nccl", "cuda:nccl,cpu:gloo", "gloo"])
def test_backends_are_told_as_torch_tells_them(backend: str):
    """The names that users give are parsed as torch parses them."""
    told = str(BackendConfig(Backend(backend)))
    assert device_kind(told) == ("cuda" if backend == "nccl" else "cpu")


@pytest.mark.parametrize("kind", ["open", "broadcast", "each"])
def test_a_group_must_be_more_patient_than_the_client(
    kind: str, server_url: str, client: Client, unique_name: str
):
    """All ranks refuse, though only one would wait too long; the message has both numbers."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    outcomes = on_ranks(2, scenarios.wait_too_long, server_url, unique_name, kind)
    refused, walked = _alike(outcomes)
    assert "gives up after 70 s" in refused
    assert "for 300 s" in refused
    assert "330 s or more" in refused
    assert walked == _curve(client, unique_name, 20)


def test_a_group_that_does_not_tell_its_timeout_is_believed():
    """Backends whose timeout cannot be read are not refused for it."""
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        assert timeout_of(None) is None
    finally:
        distributed.destroy_process_group()


def test_a_process_outside_the_group_is_told(server_url: str, client: Client, unique_name: str):
    """It does not train alone, as if there were no group."""
    client.create_session(unique_name, base_lr=0.1)
    outcomes = values(on_ranks(2, scenarios.stand_apart, server_url, unique_name))
    assert "not in the group" in outcomes[1]


# -- errors --


def test_all_ranks_hear_that_there_is_no_session(server_url: str, unique_name: str):
    """If one rank is refused, all raise the same class with the same message."""
    kind, text = _alike(on_ranks(3, scenarios.fail_to_open, server_url, unique_name))
    assert kind == "NotFoundError"
    assert unique_name in text


def test_a_second_writer_on_one_rank_stops_all(server_url: str, client: Client, unique_name: str):
    """It stops them at the first step, not within a window, before a collective that never ends."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    kind, text, step = _alike(on_ranks(3, scenarios.write_elsewhere, server_url, unique_name))
    assert (kind, step) == ("LRMismatchError", 0)
    assert "7.0" in text


def test_ranks_that_hold_different_values_are_found_out(
    server_url: str, client: Client, unique_name: str
):
    """Even if no rank checks itself, comparing the bits shows it, with both values."""
    client.create_session(unique_name, base_lr=0.1)
    kind, text = _alike(on_ranks(3, scenarios.write_unnoticed, server_url, unique_name))
    assert kind == "RankMismatchError"
    assert "different values of lr, from 0.1 to 7.0" in text


def test_ranks_with_different_checkpoints_are_stopped(
    server_url: str, client: Client, unique_name: str
):
    """No attempt is opened for ranks that loaded different steps; then they can load one."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    (kind, text), attempt, step = _alike(on_ranks(2, scenarios.part, server_url, unique_name))
    assert kind == "RankMismatchError"
    assert "the step, from 10 to 11" in text
    assert (attempt, step) == (2, 10)


def test_a_checkpoint_that_one_rank_refuses_is_refused_by_all(
    server_url: str, client: Client, unique_name: str
):
    """No rank waits for one whose file is of another session; all may then load the right one."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    (kind, text), before, after = _alike(
        on_ranks(2, scenarios.load_anothers, server_url, unique_name)
    )
    assert (kind, before, after) == ("StateMismatchError", 20, 13)
    assert "belongs to session another" in text


def test_an_optimizer_that_does_not_fit_stops_all(
    server_url: str, client: Client, unique_name: str
):
    """An error in one rank's param groups is raised on all ranks."""
    client.create_session(unique_name, base_lr=0.1)
    kind, text = _alike(on_ranks(2, scenarios.misfit, server_url, unique_name))
    assert kind == "GroupError"
    assert "0.1, 0.5" in text


# -- metrics --

LOSSES = [[1.0, 2.0, 6.0], [2.0, 2.0, 5.0], [3.0, 3.5, 4.0], [1.0, 9.0, 2.0], [9.0, 1.0, 1.0]]


def test_the_mean_of_all_ranks_may_be_reported(server_url: str, client: Client, unique_name: str):
    """The plateau sees what ReduceLROnPlateau sees when given the mean of the losses."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    client.create_session(unique_name, base_lr=0.1, controllers=[plateau])
    seen = _alike(on_ranks(3, scenarios.mean_of_losses, server_url, unique_name, LOSSES))
    optimizer = scenarios.sgd(0.1)
    reference = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    expected = []
    for losses in LOSSES:
        reference.step(fmean(losses))
        expected.append(scenarios.held(optimizer))
    assert seen == expected
    assert len(set(map(tuple, seen))) > 1
    # What was reported after the last step came with the flush: the mean of 0, 1 and 2.
    rates = client.lr(unique_name, len(LOSSES) + 1)["lr"]
    reference.step(1.0)
    assert [rates.hex()] == scenarios.held(optimizer)


def test_each_rank_may_report_where_the_session_expects_it(
    server_url: str, client: Client, unique_name: str
):
    """Where a session of three ranks would get reports from one alone, that is refused."""
    plateau = {"kind": "plateau", "metric": "loss", "patience": 0, "factor": 0.5}
    client.create_session(unique_name, base_lr=0.1, controllers=[plateau], ranks=3)
    refusal, seen = _alike(on_ranks(3, scenarios.own_reports, server_url, unique_name, LOSSES))
    assert refusal[0] == "GroupError"
    assert "reports='each'" in refusal[1]
    assert len(set(map(tuple, seen))) > 1


def test_what_one_rank_cannot_deliver_all_hear_of(
    server_url: str, client: Client, unique_name: str
):
    """Where each rank reports, a `flush` that fails on one fails on all, and none goes on alone."""
    client.create_session(unique_name, base_lr=0.1, ranks=2)
    kind, said = _alike(on_ranks(2, scenarios.flush_in_vain, server_url, unique_name))
    assert kind == "ServerUnavailableError"
    assert scenarios.NOWHERE in said


def test_notices_reach_the_listeners_of_all_ranks(
    server_url: str, client: Client, unique_name: str
):
    """A notice to the first rank reaches each rank's loop, at the same step."""
    driver = {"kind": "bold_driver", "metric": "loss"}
    client.create_session(unique_name, base_lr=0.1, controllers=[driver])
    heard = _alike(on_ranks(2, scenarios.hear, server_url, unique_name))
    assert "roll_back" in {code for _, code in heard}


# -- restarts and outages --


def test_a_restart_is_one_attempt_of_all_ranks(server_url: str, client: Client, unique_name: str):
    """They go back together, have the same rates again, and are fenced together."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    first, second, attempt, fenced = _alike(on_ranks(3, scenarios.resume, server_url, unique_name))
    curve = _curve(client, unique_name, 90)
    assert (first, second, attempt) == (curve[:60], curve[30:], 2)
    assert fenced[0] == "StaleAttemptError"
    assert client.session(unique_name).attempt == 3


def test_a_batch_size_is_said_for_all_ranks(server_url: str, client: Client, unique_name: str):
    """It is reported while training and with a restart; a refusal is raised on all ranks."""
    client.create_session(
        unique_name,
        base_lr=0.1,
        batch_size=64,
        batch_scaling="linear",
        limits={"max_lr": 1.0},
        max_lookahead=20,
    )
    said, grown, refused = _alike(on_ranks(2, scenarios.grow, server_url, unique_name))
    assert said == [[(0.2).hex()]] * 10
    assert grown == [[(0.4).hex()]] * 5
    assert refused[0] == "ConflictError"
    assert "outside the limits" in refused[1]


def test_a_batch_size_is_said_where_ranks_begin_again(
    server_url: str, client: Client, unique_name: str
):
    """Without a checkpoint they report it together, at their first step."""
    client.create_session(
        unique_name, base_lr=0.1, batch_size=64, batch_scaling="linear", max_lookahead=20
    )
    rates = _alike(on_ranks(2, scenarios.grow_silently, server_url, unique_name))
    assert rates == [[(0.1).hex()]] + [[(0.2).hex()]] * 5


@pytest.mark.filterwarnings("ignore")  # a warning of torch's, about its future
@pytest.mark.parametrize("how", ["at once", "async"])
def test_a_distributed_checkpoint_is_of_all_ranks(
    how: str, server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """Jobs of two, then three, then one rank load it: each is one attempt, at its step."""
    client.create_session(unique_name, schedule=COSINE, base_lr=0.1)
    options = (server_url, unique_name, str(tmp_path))
    assert _alike(on_ranks(2, scenarios.save_by_all, *options, how)) == 1
    curve = _curve(client, unique_name, 80)
    for attempt, size in enumerate([2, 3, 1], start=2):
        found = _alike(on_ranks(size, scenarios.load_by_all, *options))
        assert found == (30, curve[30:80], attempt)


class _Orders(SyncManager):
    """Carries messages between the test and rank 0."""


POLICIES = {
    "wait": OutagePolicy(),
    "hold": OutagePolicy("hold", patience=0.2, max_steps=700),
    "forecast": OutagePolicy("forecast", patience=0.2, max_steps=700),
}


@pytest.mark.parametrize("kind", POLICIES)
def test_ranks_go_through_an_outage_alike(kind: str, service: RunningService):
    """All wait, hold or follow the forecast, all stop at the same step, and all go on again."""
    with Client(service.url) as client:
        client.create_session("run", schedule=COSINE, base_lr=0.1)
        curve = _curve(client, "run", 2000)
    with _Orders() as manager:
        there, back = manager.Queue(), manager.Queue()
        outcomes: list[Outcome] = []
        running = threading.Thread(
            target=lambda: outcomes.extend(
                on_ranks(2, scenarios.outlive, service.url, "run", POLICIES[kind], there, back)
            )
        )
        running.start()
        assert there.get(timeout=PATIENCE) == "trained"
        service.kill()
        back.put("killed")
        assert there.get(timeout=PATIENCE) == "failed"
        service.start()
        back.put("started")
        running.join()
    (failure, at, seen, after, rate) = _alike(outcomes)
    assert failure[0] == "ServerUnavailableError"
    assert at == 20 + len(seen)
    assert after == at + 1
    assert [rate] == curve[after : after + 1]
    if kind == "hold":
        runs = [len(list(run)) for _, run in itertools.groupby(map(tuple, seen))]
        assert max(runs) >= 700
    else:
        assert seen == curve[20 : 20 + len(seen)]
        assert (len(seen) >= 700) == (kind == "forecast")


def test_ranks_resume_without_the_server_alike(
    server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """They start by a file and go back to a checkpoint; later, all are in one attempt."""
    path = tmp_path / "run.json"
    session = client.create_session(unique_name, schedule=COSINE | {"total_steps": 9000}, base_lr=1)
    client.export_bootstrap(unique_name, path)
    for step in range(60):
        session.lr(step)
    with _Orders() as manager, Proxy(server_url) as proxy:
        proxy.cut()
        there, back = manager.Queue(), manager.Queue()
        outcomes: list[Outcome] = []
        options = (proxy.url, unique_name, str(path), there, back)
        running = threading.Thread(
            target=lambda: outcomes.extend(on_ranks(2, scenarios.resume_cut_off, *options))
        )
        running.start()
        assert there.get(timeout=PATIENCE) == "trained"
        proxy.mend()
        back.put("mended")
        running.join()
    seen, attempt, state = _alike(outcomes)
    assert attempt == state["attempt"] == 2
    assert seen == _curve(client, unique_name, 9000)[30 : 30 + len(seen)]


def test_a_policy_that_goes_on_needs_one_that_decides(server_url: str, unique_name: str):
    """Ranks that each ask by themselves must not each hold by themselves."""
    outcomes = on_ranks(2, scenarios.hold_each, server_url, unique_name)
    assert [outcome.error for outcome in outcomes] == ["ValueError", "ValueError"]
    assert "one rank that decides for all" in outcomes[0].message
