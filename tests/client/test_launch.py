"""What a process knows of its job, and of the job's starts."""

import sys
from types import ModuleType

import pytest

from pacesetter._launch import Launch, launched, leads

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_ERROR_FILE": "/tmp/torchelastic_x/none_ab12/attempt_0/0/error.json",
    "WORLD_SIZE": "8",
    "GROUP_WORLD_SIZE": "1",
}
"""The environment of a worker of torchrun on one node, without a job name."""

SRUN = {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}
"""The environment of a task of srun."""


def test_without_a_launcher_each_key_is_drawn() -> None:
    """It is unique, and no attempt is recognised as an earlier start's."""
    launch = launched({})
    assert launch.run == ""
    assert launch.key(0) != launch.key(0)
    assert not launch.has_opened(launch.key(0))
    assert not launch.opened_before(launch.key(0))


def test_workers_of_one_life_make_the_same_key() -> None:
    """Each rank makes it by itself; a further restart within one start has another one."""
    ranks = [launched({**TORCHRUN, "RANK": str(rank)}) for rank in range(8)]
    assert len({rank.key(1) for rank in ranks}) == 1
    assert ranks[0].key(1) != ranks[0].key(2)
    assert ranks[0].has_opened(ranks[7].key(2))


LIVES = {
    "a worker failed": {"TORCHELASTIC_RESTART_COUNT": "1"},
    "a node came or went": {"WORLD_SIZE": "4"},
}


@pytest.mark.parametrize("change", LIVES.values(), ids=LIVES)
def test_a_later_life_knows_what_an_earlier_one_opened(change: dict[str, str]) -> None:
    """The run is the same, the start is another."""
    first, later = launched(TORCHRUN), launched({**TORCHRUN, **change})
    assert later.opened_before(first.key(0))
    assert not later.has_opened(first.key(0))


def test_the_same_command_given_again_is_another_run() -> None:
    """Torchrun calls every unnamed job `none`, and names repeat: its folder distinguishes them."""
    again = "/tmp/torchelastic_y/none_cd34/attempt_0/0/error.json"
    for name in ("none", "", "mine"):
        env = {**TORCHRUN, "TORCHELASTIC_RUN_ID": name}
        first, second = launched(env), launched({**env, "TORCHELASTIC_ERROR_FILE": again})
        assert not second.has_opened(first.key(0))
        assert not second.opened_before(first.key(0))


def test_without_a_folder_the_launching_process_tells() -> None:
    """Torchrun writes no logs at all if it is told so."""
    env = {**TORCHRUN, "TORCHELASTIC_ERROR_FILE": ""}
    assert launched(env) == launched(env)
    assert launched(env).run != launched(TORCHRUN).run


def test_on_several_nodes_the_name_is_all_that_they_share() -> None:
    """So the run is as reliable as the name; without a name there is no run."""
    several = {**TORCHRUN, "GROUP_WORLD_SIZE": "2"}
    assert launched(several) == Launch()
    named = launched({**several, "TORCHELASTIC_RUN_ID": "job 7/ü"})
    assert named == Launch("job%207%2F%C3%BC", "0/8", sure=False)


def test_a_step_of_slurm_is_a_run_and_a_requeue_a_life() -> None:
    """Another step of the same job is another run, started by hand or for another purpose."""
    first, later = launched(SRUN), launched({**SRUN, "SLURM_RESTART_COUNT": "1"})
    assert later.opened_before(first.key(0))
    other = launched({**SRUN, "SLURM_STEP_ID": "1"})
    assert not other.opened_before(first.key(0))
    assert not other.has_opened(first.key(0))


TYPED = {
    "a terminal": {**SRUN, "SLURM_PTY_PORT": "40001"},
    "the shell of salloc": {**SRUN, "SLURM_STEP_ID": str(0xFFFFFFFA)},
    "a batch script": {"SLURM_JOB_ID": "17"},
}


@pytest.mark.parametrize("environ", TYPED.values(), ids=TYPED)
def test_what_is_typed_in_a_job_of_slurm_is_no_run(environ: dict[str, str]) -> None:
    """A command given twice in one shell starts two trainings."""
    assert launched(environ) == Launch()


def test_what_runs_in_a_notebook_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user runs a cell again, however the kernel was started."""
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert launched(SRUN) == Launch()


def test_torchrun_under_srun_lives_on_through_both() -> None:
    """A requeued step starts torchrun anew, which counts from 0 again."""
    several = {**TORCHRUN, **SRUN, "GROUP_WORLD_SIZE": "2"}
    first, later = launched(several), launched({**several, "SLURM_RESTART_COUNT": "1"})
    assert first.sure
    assert later.opened_before(first.key(0))


def test_a_run_can_be_named_where_no_launcher_is() -> None:
    """Each process is a start of it, unless the start is named too."""
    named = {"PACESETTER_RUN": "job-7"}
    one, two = launched(named), launched({**named, "PACESETTER_RESTART": "2"})
    assert two.opened_before(one.key(0))
    three = launched({**named, "PACESETTER_RESTART": "3"})
    assert three.opened_before(two.key(0))
    assert three == launched({**named, "PACESETTER_RESTART": "3"})
    assert not launched({"PACESETTER_RUN": "job-8"}).opened_before(one.key(0))


def test_a_named_run_has_its_launchers_lives() -> None:
    """A container that is started again starts torchrun again: another folder, the same run."""
    env = {**TORCHRUN, "PACESETTER_RUN": "job-7"}
    again = "/tmp/torchelastic_y/none_cd34/attempt_0/0/error.json"
    first, second = launched(env), launched({**env, "TORCHELASTIC_ERROR_FILE": again})
    assert second.opened_before(first.key(0))
    assert first.has_opened(launched({**env, "RANK": "3"}).key(0))


def test_a_key_is_short_and_printable() -> None:
    """This holds however long the names are, and long names that differ make different keys."""
    longest = "ü" * 500
    env = {**TORCHRUN, **SRUN, "TORCHELASTIC_RUN_ID": longest, "SLURM_JOB_ID": longest}
    env |= {"PACESETTER_RUN": longest, "PACESETTER_RESTART": longest}
    key = launched(env).key("f" * 32)
    assert key.isascii()
    assert key.isprintable()
    assert len(key) <= 256
    assert launched({**env, "PACESETTER_RUN": longest + "a"}).run != launched(env).run


def test_the_first_rank_leads() -> None:
    """The argument at opening decides, and else the environment."""
    assert leads(0, {})
    assert not leads(1, {})
    assert not leads(0, {"RANK": "1"})
    assert leads(0, {"RANK": "0", "SLURM_PROCID": "1"})
    assert not leads(0, SRUN)
