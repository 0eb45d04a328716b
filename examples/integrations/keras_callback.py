"""Keras: one callback in place of both `LearningRateScheduler` and `ReduceLROnPlateau`.

Start a server first: `pacesetter serve`. A cosine is followed, and halved where the validation loss
stops improving. The job is interrupted, and a second one goes on where the backup was made.
"""

import os
import tempfile

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np

from pacesetter import Client
from pacesetter.keras import PacesetterCallback

EPOCHS = 12
SESSION = "keras-callback"


def interrupt(epoch: int, _logs: object) -> None:
    """End the job as its seventh epoch begins, as Ctrl-C would."""
    if epoch == 6:
        raise KeyboardInterrupt


def job(client: Client, folder: str, *more: keras.callbacks.Callback) -> None:
    """Train, from the backup if there is one."""
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(256, 8)).astype("float32")
    wanted = inputs.sum(1, keepdims=True) + draw.normal(size=(256, 1)).astype("float32")
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    session = client.session(SESSION)
    callbacks = [
        PacesetterCallback(session),
        keras.callbacks.BackupAndRestore(folder),
        keras.callbacks.LambdaCallback(on_epoch_end=tell),
        *more,
    ]
    print(f"fit, with attempt {session.attempt} of {session.name}:")
    model.fit(inputs, wanted, epochs=EPOCHS, validation_split=0.5, callbacks=callbacks, verbose=0)
    print(f"done, in attempt {session.attempt}")


def tell(epoch: int, logs: dict[str, float]) -> None:
    """Print what Keras logs of an epoch."""
    rate, loss = logs["learning_rate"], logs["val_loss"]
    print(f"epoch {epoch:2}  learning_rate {rate:.6f}  val_loss {loss:.4f}")


def main() -> None:
    """Train, be interrupted, and go on."""
    client = Client()
    client.create_session(
        SESSION,
        base_lr=0.1,
        schedule={"kind": "keras.CosineDecay", "initial_learning_rate": 0.1, "decay_steps": EPOCHS},
        controllers=[{"kind": "keras.ReduceLROnPlateau", "factor": 0.5, "patience": 2}],
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            job(client, folder, keras.callbacks.LambdaCallback(on_epoch_begin=interrupt))
        except KeyboardInterrupt:
            print("interrupted; a second job goes on:")
        job(client, folder)


if __name__ == "__main__":
    main()
