"""A Trainer that is run again, trains longer, or is one trial of a search, by a real service."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, OptunaBackend
from transformers.trainer_utils import HPSearchBackend

from integrations.hf_training import (
    PLATEAU,
    At,
    Losses,
    Net,
    Rates,
    arguments,
    examples,
    logged,
    sealed,
    trainer_of,
    weights,
)
from pacesetter import Client, ConflictError, ResumeError, StateMismatchError
from pacesetter._trials import name_of
from pacesetter.transformers import PacesetterCallback, PacesetterTrainer
from serving import open_http

PLATEAU_RULE = {"kind": "plateau", "metric": "eval_loss", **PLATEAU}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the environment says of a job."""
    for name in ("TORCHELASTIC_RUN_ID", "PACESETTER_RUN", "SLURM_JOB_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(name="client")
def _client(server_url: str) -> Iterator[Client]:
    """Return a client of the real service; its sessions are closed with it."""
    with Client(server_url) as client:
        yield client


def starts(url: str, name: str) -> list[int]:
    """Return the first step of each attempt."""
    with open_http(url) as http:
        return [
            each["start"] for each in http.get(f"/v1/sessions/{name}/attempts").json()["attempts"]
        ]


def called(client: Client, begin: str) -> set[str]:
    """Return the sessions whose names begin so."""
    return {each.name for each in client.sessions() if each.name.startswith(begin)}


# -- run again --


@pytest.fixture(name="cut")
def _cut(client: Client, unique_name: str, tmp_path: Path) -> Callable[..., Any]:
    """Train with evaluations that cut the rate; return what makes such a Trainer again."""
    args = arguments(
        tmp_path, lr_scheduler_type="constant", eval_strategy="steps", eval_steps=2, max_steps=8
    )

    def again(losses: list[float], *more: Any, **options: Any) -> Any:
        callback = PacesetterCallback(
            unique_name, client=client, controllers=[PLATEAU_RULE], **options
        )
        trainer = trainer_of(args, callback, *more)
        Losses(*losses, *losses).patch(trainer)
        return trainer

    trainer = again([1.0] * 4)
    trainer.train()
    assert logged(trainer) == [0.01] * 6 + [0.005] * 2
    return again


@pytest.mark.parametrize("is_open", [False, True])
def test_a_rerun_is_refused_before_its_first_update(
    is_open: bool, cut: Callable[..., Any], client: Client, unique_name: str, tmp_path: Path
):
    """It does not train on the old run's cuts, however often it tries; the error has remedies."""
    used: list[float] = []
    if is_open:
        callback = PacesetterCallback(client.session(unique_name))
        trainer = trainer_of(arguments(tmp_path), callback, Rates(used))
    else:
        trainer = cut([1.0] * 4, Rates(used))
    before = weights(trainer)
    for _ in range(2):
        with pytest.raises(ResumeError, match=r"train\(resume_from_checkpoint") as refused:
            trainer.train()
    for way in ("another name", "resume='restart'", "continues='the-old-one'"):
        assert way in str(refused.value)
    assert used == []
    assert weights(trainer) == before
    assert client.session(unique_name).attempt == 1


@pytest.mark.parametrize(
    ("resume", "rates", "attempt"),
    [("restart", [0.01] * 8, 2), ("continue", [0.01] * 6 + [0.005] * 2, 1)],
)
def test_a_rerun_may_say_what_it_means(
    resume: str,
    rates: list[float],
    attempt: int,
    cut: Callable[..., Any],
    client: Client,
    unique_name: str,
):
    """A new attempt knows nothing of the old cuts; following the old one has them."""
    trainer = cut([1.0, 0.5, 0.2, 0.1], resume=resume)
    trainer.train()
    assert logged(trainer) == rates
    assert client.session(unique_name).attempt == attempt


def test_a_job_that_its_launcher_starts_again_begins_again(
    client: Client, unique_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first life died before a checkpoint; the same job started by hand is refused."""

    def crash() -> None:
        raise KeyboardInterrupt

    def life(number: str, *more: Any, run: str = "job") -> Any:
        monkeypatch.setenv("PACESETTER_RUN", run)
        monkeypatch.setenv("PACESETTER_RESTART", number)
        callback = PacesetterCallback(unique_name, client=client)
        return trainer_of(arguments(tmp_path), callback, *more)

    with pytest.raises(KeyboardInterrupt):
        life("0", At(5, crash)).train()
    second = life("1")
    second.train()
    assert second.lr_scheduler.session.attempt == 2
    assert logged(second) == sealed(client, unique_name, 12)
    with pytest.raises(ResumeError):
        life("0", run="another").train()


@pytest.mark.parametrize("is_open", [False, True])
def test_a_second_training_of_a_trainer_is_the_same_run(
    is_open: bool, server_url: str, client: Client, unique_name: str, tmp_path: Path
):
    """It begins again in a new attempt, and needs no policy."""
    session = client.session(unique_name, base_lr=0.01) if is_open else unique_name
    trainer = trainer_of(arguments(tmp_path), PacesetterCallback(session, client=client))
    for attempt in (1, 2, 3):
        trainer.train()
        assert trainer.lr_scheduler.session.attempt == attempt
        assert logged(trainer) == sealed(client, unique_name, 12)
    assert starts(server_url, unique_name) == [0, 0, 0]


def test_how_to_open_says_nothing_of_an_open_session(client: Client, unique_name: str):
    """An unknown policy is refused before anything is loaded."""
    session = client.session(unique_name, base_lr=0.1)
    with pytest.raises(TypeError, match="resume, continues would say nothing"):
        PacesetterCallback(session, resume="restart", continues="old")
    with pytest.raises(ValueError, match="resume='again': choose from"):
        PacesetterCallback(unique_name, resume="again")


# -- train longer, or at another rate --


@pytest.fixture(name="old")
def _old(client: Client, unique_name: str, tmp_path: Path) -> str:
    """Train 10 updates with checkpoints after 5 and 10; return the session's name."""
    args = arguments(tmp_path / "old", max_steps=10, save_strategy="steps", save_steps=5)
    trainer_of(args, PacesetterCallback(unique_name, client=client)).train()
    return unique_name


def longer(folder: Path, callback: PacesetterCallback, used: list[float]) -> Any:
    """Return a Trainer of more epochs at another rate and by another law, that saves."""
    args = arguments(
        folder,
        max_steps=-1,
        num_train_epochs=4,  # of 6 updates
        learning_rate=0.02,
        lr_scheduler_type="cosine",
        save_strategy="steps",
        save_steps=5,
    )
    return trainer_of(args, callback, Rates(used))


COSINE = {"kind": "hf.cosine", "num_warmup_steps": 0, "num_training_steps": 24}


@pytest.mark.parametrize("step", [5, 10])
def test_a_checkpoint_is_continued_for_longer(
    step: int, server_url: str, old: str, client: Client, tmp_path: Path
):
    """The fork has the old past, then the new curve to the bit; its own checkpoints fit, too."""
    name = f"{old}-longer"
    curve = client.preview(COSINE, base_lr=0.02, count=24)["series"]["lr"]
    parents, own = tmp_path / f"old/checkpoint-{step}", tmp_path / "new/checkpoint-15"
    for attempt, (checkpoint, times) in enumerate(((parents, 2), (own, 1)), start=1):
        used: list[float] = []
        callback = PacesetterCallback(name, client=client, continues=old)
        trainer = longer(tmp_path / "new", callback, used)
        assert attempt > 1 or called(client, name) == set()
        for _ in range(times):
            used.clear()
            trainer.train(resume_from_checkpoint=str(checkpoint))
            first = int(checkpoint.name.removeprefix("checkpoint-"))
            assert used == curve[first:]
    assert starts(server_url, name)[1:] == [step, 15]
    assert sealed(client, name, 24) == sealed(client, old, step) + curve[step:]
    assert client.session(name).info.spec["forked_from"]["step"] == step
    with pytest.raises(ResumeError, match=f"begins at step {step}, where it goes on from"):
        trainer.train()  # its first steps are the parent's


def test_the_parents_checkpoint_must_be_of_the_step_where_it_branched_off(
    old: str, client: Client, tmp_path: Path
):
    """Another one is refused, with the way to continue from there."""
    for number, error in ((5, None), (10, StateMismatchError)):
        callback = PacesetterCallback(f"{old}-longer", client=client, continues=old)
        trainer = longer(tmp_path / "new", callback, [])
        checkpoint = str(tmp_path / f"old/checkpoint-{number}")
        if error is None:
            trainer.train(resume_from_checkpoint=checkpoint)
        else:
            with pytest.raises(error, match=r"was trained by .* PacesetterCallback\('another-name"):
                trainer.train(resume_from_checkpoint=checkpoint)


def test_the_trainers_step_is_enough_to_continue(old: str, client: Client, tmp_path: Path):
    """A checkpoint without a scheduler still has the number of updates."""
    checkpoint = tmp_path / "old/checkpoint-5"
    for name in ("scheduler.pt", "optimizer.pt"):
        (checkpoint / name).unlink()
    used: list[float] = []
    callback = PacesetterCallback(f"{old}-longer", client=client, continues=old)
    longer(tmp_path / "new", callback, used).train(resume_from_checkpoint=str(checkpoint))
    assert used == client.preview(COSINE, base_lr=0.02, count=24)["series"]["lr"][5:]


def test_what_is_to_continue_wants_a_checkpoint(
    old: str, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Without one, nothing is created or trained, and no rate is said to be overwritten."""
    used: list[float] = []
    callback = PacesetterCallback(f"{old}-longer", client=client, continues=old)
    trainer = longer(tmp_path / "new", callback, used)
    for _ in range(2):
        with pytest.raises(ResumeError, match=r"from which step.*resume_from_checkpoint"):
            trainer.train()
    assert used == []
    assert called(client, old) == {old}
    assert "was made with" not in caplog.text


def test_changed_arguments_are_refused(old: str, client: Client, tmp_path: Path):
    """A run that comes back for longer at another rate is told how, and trains by neither."""
    used: list[float] = []
    changed = longer(tmp_path / "new", PacesetterCallback(old, client=client), used)
    with pytest.raises(ConflictError, match=r"base_lr \(0.02 here, 0.01 there\)") as refused:
        changed.train(resume_from_checkpoint=str(tmp_path / "old/checkpoint-10"))
    assert f"PacesetterCallback('another-name', continues='{old}')" in str(refused.value)
    assert used == []


def test_a_checkpoint_of_another_run_is_refused(old: str, client: Client, tmp_path: Path):
    """The error says how to go on from it."""
    trainer = longer(tmp_path / "new", PacesetterCallback(f"{old}-other", client=client), [])
    with pytest.raises(StateMismatchError, match=r"PacesetterCallback\('another-name', continues="):
        trainer.train(resume_from_checkpoint=str(tmp_path / "old/checkpoint-5"))


def test_a_run_of_the_plain_trainer_can_be_taken_over(
    client: Client, unique_name: str, tmp_path: Path
):
    """A checkpoint with torch's scheduler goes on at its step in a new session of the same law.

    Arguments of another law would use half of its state: that is refused, with the remedy.
    """
    args = arguments(tmp_path / "old", save_strategy="steps", save_steps=5)
    plain = trainer_of(args, kind=Trainer)
    plain.train()
    checkpoint = str(tmp_path / "old/checkpoint-5")
    paced = trainer_of(args, PacesetterCallback(unique_name, client=client))
    paced.train(resume_from_checkpoint=checkpoint)
    assert logged(paced)[5:] == sealed(client, unique_name, 12)[5:]
    assert logged(paced) == pytest.approx(logged(plain), rel=1e-12)
    used: list[float] = []
    callback = PacesetterCallback(f"{unique_name}-longer", client=client)
    with pytest.raises(StateMismatchError, match="base learning rates") as refused:
        longer(tmp_path / "new", callback, used).train(resume_from_checkpoint=checkpoint)
    assert "last_epoch" in str(refused.value)
    assert used == []


# -- searches --


class Trial(dict[str, Any]):
    """What Optuna calls a trial, as far as transformers uses it."""

    number: int

    @property
    def params(self) -> dict[str, Any]:
        """What is tried."""
        return self


class Search(OptunaBackend):
    """Runs trials as transformers lets Optuna do; Optuna itself need not be installed."""

    @staticmethod
    def is_available() -> bool:
        """Return that it is installed."""
        return True

    def run(self, trainer: Any, n_trials: int, direction: str, **kwargs: Any) -> list[float]:
        """Train each trial, then evaluate it."""
        found = []
        for number in range(n_trials):
            trial = Trial(learning_rate=0.01 * (number + 1))
            trial.number = number
            trainer.train(trial=trial)
            found.append(trainer.compute_objective(trainer.evaluate()))
        return found


@pytest.fixture(name="search")
def _search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what makes a Trainer whose searches have two trials, and searches."""
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, Search)

    def searched(callback: PacesetterCallback, **options: Any) -> Any:
        trainer = PacesetterTrainer(
            model_init=lambda trial: Net(),
            args=arguments(tmp_path),
            train_dataset=examples(24),
            eval_dataset=examples(8),
            callbacks=[callback],
        )
        trainer.hyperparameter_search(
            backend="optuna", hp_space=lambda trial: trial, n_trials=2, **options
        )
        return trainer

    return searched


@pytest.mark.parametrize(
    ("ending", "options", "names"),
    [
        ("{run}", {}, ["run-0", "run-1"]),
        ("{run}", {"hp_name": lambda trial: f"lr{trial['learning_rate']}"}, ["lr0.01", "lr0.02"]),
        ("{trial.number}", {}, ["0", "1"]),
        (lambda trial: f"at-{trial['learning_rate']}", {}, ["at-0.01", "at-0.02"]),
    ],
)
def test_each_trial_of_a_search_has_a_session(
    ending: Any,
    options: dict[str, Any],
    names: list[str],
    client: Client,
    unique_name: str,
    search: Callable[..., Any],
):
    """Its name is made from the trial, and its rates are what the trial tries."""
    naming: Any = f"{unique_name}-{ending}"
    if callable(ending):
        naming = lambda trial: f"{unique_name}-{ending(trial)}"  # noqa: E731 - as a user writes it
    search(PacesetterCallback(naming, client=client), **options)
    assert called(client, unique_name) == {f"{unique_name}-{name}" for name in names}
    for name, base in zip(names, (0.01, 0.02), strict=True):
        info = client.session(f"{unique_name}-{name}").info
        assert (info.base_lr(None), info.attempt) == (base, 1)
        assert info.horizon >= 12


def test_a_second_search_is_another_run(
    client: Client, unique_name: str, search: Callable[..., Any]
):
    """Its trials have the names of the first one's, and train on none of them."""
    callback = PacesetterCallback(f"{unique_name}-{{run}}", client=client)
    search(callback)
    with pytest.raises(ResumeError):
        search(callback)


@pytest.mark.parametrize("is_open", [False, True])
def test_trials_do_not_share_a_session(
    is_open: bool, client: Client, unique_name: str, search: Callable[..., Any]
):
    """The first trial is refused already, with how to name them, and nothing is created."""
    session = client.session(f"{unique_name}-open", base_lr=0.1) if is_open else unique_name
    with pytest.raises(ValueError, match=r"-\{run\}'.* or with a function of the trial"):
        search(PacesetterCallback(session, client=client))
    assert unique_name not in called(client, unique_name)


def test_a_trainer_that_does_not_train_creates_nothing(
    client: Client, unique_name: str, tmp_path: Path
):
    """Neither building nor evaluating it opens a session."""
    trainer = trainer_of(arguments(tmp_path), PacesetterCallback(unique_name, client=client))
    trainer.evaluate()
    assert called(client, unique_name) == set()


def test_a_function_may_name_trainings_that_are_no_trials(
    client: Client, unique_name: str, tmp_path: Path
):
    """It gets None; so a loop over rates on one Trainer has a session for each."""
    args = arguments(tmp_path, max_steps=3)
    callback = PacesetterCallback(
        lambda trial: f"{unique_name}-{trial}-{args.learning_rate}", client=client
    )
    trainer = PacesetterTrainer(
        model_init=Net, args=args, train_dataset=examples(24), callbacks=[callback]
    )
    for args.learning_rate in (0.01, 0.02):
        trainer.train()
        assert logged(trainer) == sealed(client, f"{unique_name}-None-{args.learning_rate}", 3)


@pytest.mark.parametrize(
    ("naming", "trial", "match"),
    [
        ("sweep-{run}", None, "this training is none"),
        ("sweep-{run}", {"lr": 1}, "there is trial, and the trial is"),
        ("sweep-{trial.number}", {"lr": 1}, "AttributeError"),
        ("sweep-{", {"lr": 1}, "cannot be filled in"),
        ("sweep", {"lr": 1}, "each trial would train session sweep"),
    ],
)
def test_a_name_that_cannot_be_made_is_refused(naming: str, trial: Any, match: str):
    """The error says what there is, or what to pass."""
    with pytest.raises(ValueError, match=match):
        name_of(naming, trial, None)


def test_names_are_made_of_what_the_search_says():
    """They come from a trial's keys, from the search's own name, or are used as they are."""
    assert name_of("a-{trial[lr]}-{run}", {"lr": 1}, "run-7") == "a-1-run-7"
    assert name_of("a", None, None) == "a"
    with pytest.raises(TypeError, match="let it return the name"):
        name_of(lambda trial: trial, None, None)


# -- begins elsewhere --


@pytest.mark.parametrize("is_fork", [False, True])
def test_a_training_begins_where_its_session_was_sent(
    is_fork: bool, client: Client, unique_name: str, tmp_path: Path
):
    """It follows `step=`, without a checkpoint of the Trainer's; so does its second training."""
    falling = {"kind": "exponential", "gamma": 0.9}
    client.session(unique_name, base_lr=0.01, schedule=falling).lr(20)
    more: Any = {"continues": unique_name, "base_lr": 0.02} if is_fork else {}
    name = f"{unique_name}-fork" if is_fork else unique_name
    session = client.session(name, step=4, **more)
    used: list[float] = []
    trainer = trainer_of(arguments(tmp_path), PacesetterCallback(session), Rates(used))
    for _ in range(2):
        used.clear()
        trainer.train()
        assert used == sealed(client, name, 16)[4:]
