"""The learning rate beside the loss in an experiment tracker: listeners for `Session.on_report`.

```python
session.on_report(trackers.tensorboard(SummaryWriter()), every=50)
```

Each is made from an object of the tracker's own library; none of these libraries is imported here.
Whatever is reported to the session goes there under the same names, and so do the values of the
session's series at that step: `lr`, or `body.lr` and `head.lr` for a session with groups.
"""

from __future__ import annotations

from typing import Any

from pacesetter._listeners import OnReport

__all__ = ["mlflow", "tensorboard", "wandb"]


def tensorboard(writer: Any, *, prefix: str = "") -> OnReport:  # noqa: ANN401 - of any library
    """Log to TensorBoard.

    Args:
        writer: A `SummaryWriter`, of torch or of tensorboardX. Its owner must close it.
        prefix: Put before each name, for instance `"train/"`.
    """

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(prefix + name, value, step)

    return log


def wandb(run: Any, *, prefix: str = "", step_metric: str | None = None) -> OnReport:  # noqa: ANN401 - as above
    """Log to Weights & Biases.

    W&B's own step never goes back: it drops, with a warning, what is reported for an earlier step
    than the last one, as after a restart from a checkpoint. A `step_metric` may go back.

    Args:
        run: The run of `wandb.init()`. Its owner must finish it.
        prefix: Put before each name, for instance `"train/"`.
        step_metric: If given, log the step as a metric of this name and draw the others over it, in
            place of W&B's own step, which then counts the calls of `run.log`.
    """

    def log(step: int, values: dict[str, float]) -> None:
        named = {prefix + name: value for name, value in values.items()}
        if step_metric is None:
            run.log(named, step=step)
            return
        for name in named.keys() - defined:
            run.define_metric(name, step_metric=step_metric)
        defined.update(named)
        run.log({**named, step_metric: step})

    defined: set[str] = set()
    return log


def mlflow(client: Any, run_id: str, *, prefix: str = "") -> OnReport:  # noqa: ANN401 - as above
    """Log to MLflow, whose own thread talks to the tracking server.

    Args:
        client: An `MlflowClient`. `mlflow.flush_async_logging()`, and the end of the program, wait
            for what is on its way to the current tracking URI.
        run_id: `run.info.run_id` of the run.
        prefix: Put before each name, for instance `"train/"`.
    """

    def log(step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            client.log_metric(run_id, prefix + name, value, step=step, synchronous=False)

    return log
