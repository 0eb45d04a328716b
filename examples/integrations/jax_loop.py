"""JAX and optax: the rate of each update is an argument of the jitted step.

Start a server first: `pacesetter serve`.
"""

import jax
import jax.numpy as jnp
import optax

from pacesetter import Client

STEPS = 200

optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)


def loss_of(weights: jax.Array, inputs: jax.Array) -> jax.Array:
    """Return how far the model is from the sum of its inputs."""
    return jnp.square(inputs @ weights - inputs.sum(1)).mean()


@jax.jit
def train(
    weights: jax.Array, state: optax.OptState, inputs: jax.Array, lr: float
) -> tuple[jax.Array, optax.OptState, jax.Array]:
    """Make an update with a traced learning rate: another value needs no compilation."""
    loss, gradients = jax.value_and_grad(loss_of)(weights, inputs)
    state = optax.tree.set(state, learning_rate=lr)
    updates, state = optimizer.update(gradients, state, weights)
    return optax.apply_updates(weights, updates), state, loss


keys = jax.random.split(jax.random.key(0), STEPS)
weights = jnp.zeros(8)
state = optimizer.init(weights)
cosine = {"kind": "cosine", "total_steps": STEPS}
session = Client().session("jax", base_lr=0.1, schedule=cosine)
for step in range(STEPS):
    inputs = jax.random.normal(keys[step], (32, 8))
    weights, state, loss = train(weights, state, inputs, session.lr(step))
    if step % 10 == 0:  # reading the loss waits for the step
        session.report(step, loss=loss)
session.close()
print(f"loss {loss:.1e}")
