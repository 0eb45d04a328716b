"""The page that `closed_loop.py` writes: tables and sentences from its results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from closed_loop_arms import ARMS, FIXED, Arm
from closed_loop_results import (
    SURVIVES,
    Comparison,
    Difference,
    Ending,
    Results,
    Spread,
    Trial,
    difference,
)
from closed_loop_run import CHECKPOINT_EVERY, KEPT

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from wrapping import wrapped

HEAD = """\
# The closed loop against the fixed schedule

Does it help when the learning rate answers to what is measured? Here two small networks are
trained in several ways, at each seed with the same first weights and the same batches. All learning
rates come from a running service, and are compared with its record afterwards.

`make closed-loop` trains, counts, draws and writes this page. All numbers come from one run of it.
The same versions on the same kind of CPU give the same numbers again.
"""

JUDGEMENT = """\
## In short

- **Where the rate suits, the loop wins little.** No loss of `plateau` or `greedy` can be told from
  the cosine's. What they spare is knowing the length of the training. On the text `plateau` gets
  more right than the cosine, but so does a constant rate: so short a training need not slow down.
- **Where the rate is ten times too low, `greedy` wins clearly.** It raises the rate, and nearly
  makes up for the mistake. A constant rate and `plateau`, which can only lower it, also end
  better than the cosine, but far behind.
- **Where it is four times too high, nothing makes up for it.** `plateau` does as well as the
  cosine, and a constant rate does worse than both.
- **A guard costs little while nothing happens:** a request at each step. It mostly makes no
  decision, and then the training is the fixed schedule's to the bit.
- **Where something goes wrong, the guard saves what the fixed schedule loses.** Going back saves
  spoiled weights, and cutting saves from a rate that is far too high. Only both together save from
  both.
- **It is no remedy for all.** Clipping gradients saves the training with the spoiled batches too,
  and at no loss, while the guard's cut, which was not needed there, makes the end worse. Clipping
  does not help against a rate that is too high.

Both trainings are small and short. The sizes of the differences are theirs.
"""


def law_of(arm: Arm) -> str:
    """Say how an arm gets its learning rates."""
    law = "a cosine" if arm.falls else "constant"
    return ", ".join([law, *(f"and `{json.dumps(each)}`" for each in arm.controllers)])


ROWS = "\n".join(f"| `{arm.name}` | {law_of(arm)} |" for arm in ARMS)
HOW = f"""\
## What is compared

| arm | learning rate |
|---|---|
{ROWS}

- Each rate first rises in a straight line, over a 20th of the steps. The cosine then falls to 0 at
  the end: it is the only law here that knows how long the training is. Controllers sleep while the
  rate first rises (`from_step`).
- The base learning rate is one that suits the cosine, found with other seeds
  (`python examples/closed_loop.py --search`). So the fixed schedule has the advantage. Then all
  arms run at a tenth of it and at four times as much.
- `plateau` and `greedy` were set once, for about fifty validations in a training, and not tuned.
  They see the loss on validation data. The accuracy is that on test data, which decides nothing.
- `spike_guard` sees the training loss of each step. On its notice `roll_back` the trainer loads the
  oldest of its checkpoints and goes on with new batches. It saves one every {CHECKPOINT_EVERY}
  steps and keeps {KEPT}.
- Tables give mean ± standard deviation over the seeds. The difference is that of the validation
  losses, seed by seed: its mean ± half of Student's 95 % interval. With so many intervals on one
  page some miss by chance, and losses that deviate much make them wide.
"""


def written(results: Results) -> str:
    """Return the whole page."""
    full = len(results.trials) > 1
    said = [HEAD, JUDGEMENT, HOW] if full else [HEAD, HOW]
    return wrapped("\n".join(chain(said, _body(results))))


def _body(results: Results) -> Iterator[str]:
    suited = [each for each in results.comparisons if each.factor == 1.0]
    others = [each for each in results.comparisons if each.factor != 1.0]
    for each in suited:
        yield from _comparison(each)
    if others:
        yield "## Where the base learning rate does not suit\n"
        yield "![mean validation losses over base learning rates](closed_loop/bases.png)\n"
        for each in others:
            yield f"### {each.task}, {each.factor:g} times the rate that suits\n"
            yield from _table(each)
    if results.trials:
        yield from _trials(results.trials)
    named = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield f"## Versions\n\n{named}. The text is that of this Python's language reference.\n"


def _comparison(each: Comparison) -> Iterator[str]:
    yield f"## {each.task}\n"
    yield (
        f"{each.what[0].upper()}{each.what[1:]}; {each.steps} steps, a validation after every"
        f" {each.every}, base learning rate {each.base_lr:g}.\n"
    )
    yield f"![learning rates and losses of {each.task}](closed_loop/{each.task}.png)\n"
    yield from _table(each)


def _table(each: Comparison) -> Iterator[str]:
    yield "| arm | validation loss | difference to the cosine | test accuracy | decisions |"
    yield "|---|---|---|---|---|"
    fixed = each.arms[FIXED.name]
    for name, endings in each.arms.items():
        apart = "" if name == FIXED.name else _apart(difference(endings, fixed))
        decisions = Spread.of([ending.decisions for ending in endings]).mean
        yield f"| `{name}` | {_loss(endings)} | {apart} | {_accuracy(endings)} | {decisions:.1f} |"
    yield ""
    yield from _sentences(each)


def _apart(found: Difference | None) -> str:
    if found is None:
        return "cannot be told"
    if found.same:
        return "none, to the bit"
    return f"{found.mean:+.4f} ± {found.margin:.4f} ({found.verdict})"


def _loss(endings: Sequence[Ending]) -> str:
    finite = [ending.val_loss for ending in endings if ending.val_loss is not None]
    lost = len(endings) - len(finite)
    if not finite:
        return f"not finite in any of {lost}"
    spread = Spread.of(finite)
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}" + (f"; {lost} not finite" if lost else "")


def _accuracy(endings: Sequence[Ending]) -> str:
    spread = Spread.of([100 * ending.accuracy for ending in endings])
    return f"{spread.mean:.1f} % ± {spread.deviation:.1f}"


WORDS = {
    "lower": "Lower than the cosine's is the loss of",
    "higher": "Higher is that of",
    "unclear": "Not told apart from it by this many seeds:",
    "same": "Equal to it to the bit, with no decision made:",
}


def _sentences(each: Comparison) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for name, endings in each.arms.items():
        apart = difference(endings, each.arms[FIXED.name])
        if name != FIXED.name and apart is not None:
            found.setdefault(apart.verdict, []).append(f"`{name}`")
    said = [f"{words} {', '.join(found[key])}." for key, words in WORDS.items() if key in found]
    yield f"{len(each.arms[FIXED.name])} seeds. {' '.join(said)}\n"


TRIALS = f"""\
## Where something goes wrong

Now the guard has something to do. A training *survives* if it ends with at least
{100 * SURVIVES:.0f} % of the accuracy that it has without the fault, at the same seed. Five arms
show which part of the remedy does what. The guard is set as above, everywhere. Its factor of 0.1
happens to make 2 of a slip by 20; a larger slip takes more cuts, and it answers three spikes.

| arm | what happens at a spike |
|---|---|
| `cosine` | nothing |
| `cosine, clipped` | gradients are clipped to a norm of 1: the usual remedy, without any service |
| `only lower` | the guard cuts the rate, and the trainer ignores the notice |
| `only go back` | the guard only tells, and the trainer goes back |
| `spike_guard` | the guard cuts the rate and tells, and the trainer goes back |
"""


def _trials(trials: Sequence[Trial]) -> Iterator[str]:
    yield TRIALS
    for trial in trials:
        yield f"### {trial.task}: {trial.fault}\n"
        yield f"At step {trial.at} of {trial.steps}, {trial.what}.\n"
        yield (
            f"![learning rates and losses through the {trial.fault}]"
            f"(closed_loop/{trial.fault}.png)\n"
        )
        yield "| arm | survived | validation loss | test accuracy | decisions | returns |"
        yield "|---|---|---|---|---|---|"
        for name, endings in trial.arms.items():
            survived = sum(bool(ending.survived) for ending in endings)
            decisions = Spread.of([ending.decisions for ending in endings]).mean
            returns = Spread.of([ending.returns for ending in endings]).mean
            yield (
                f"| `{name}` | {survived} of {len(endings)} | {_loss(endings)} |"
                f" {_accuracy(endings)} | {decisions:.1f} | {returns:.1f} |"
            )
        yield ""
