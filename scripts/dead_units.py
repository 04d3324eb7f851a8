"""Bottleneck units of the dense linear autoencoder on MNIST that no test image activates, while it trains.

python scripts/dead_units.py --data_dir=DIR     (with the configuration configs/linear_ae_mnist.py)
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lotto_jax import pruning
from lotto_jax.cli import load_config
from lotto_jax.data import sources
from lotto_jax.experiments import build
from lotto_jax.objectives.state import TrainState
from lotto_jax.training import loop, mesh, packing

CHUNK = 1000


def dead_units(states: TrainState, image: np.ndarray) -> list[int]:
    """Units with output 0 on all images (rows in [0, 1]), for every seed."""
    layer = jax.device_get(states.params["encoder"]["dense"])
    highest = [
        np.max(image @ kernel + bias, axis=0) for kernel, bias in zip(layer["kernel"], layer["bias"], strict=True)
    ]
    return [int(np.sum(h <= 0)) for h in highest]


def main() -> None:
    """Train the dense networks of all seeds and print the counts at some steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="", help="directory of the TFDS dataset (default: $TFDS_DATA_DIR)")
    config_file = Path(__file__).resolve().parents[1] / "configs" / "linear_ae_mnist.py"
    config = load_config(str(config_file), [])
    dataset = sources.load("mnist", parser.parse_args().data_dir)
    objective = build.objective(config, dataset.image_shape)
    states = loop.init(objective, jnp.asarray(config.seeds, jnp.uint32), jnp.uint32(0))
    mask = jax.vmap(lambda params: pruning.ones(params))(states.params)
    data = jax.device_put(packing.pack(*dataset.train))
    image = dataset.test.image.reshape(len(dataset.test.label), -1) / np.float32(255)
    batch_size = config.train.batch_size
    on = mesh.make(1, batch_size, devices=1)
    last = config.train.epochs * (len(dataset.train.label) // batch_size)
    step = 0
    for target in (0, 5, config.imp.rewind_step, 50, 500, last):
        while step < target:
            end = min(step + CHUNK, target)
            bounds = jnp.int32(step), jnp.int32(end)
            states, _, _ = loop.train(
                objective, states, mask, data, *bounds, batch_size=batch_size, length=CHUNK, mesh=on
            )
            step = end
        print(
            f"step {step}: {dead_units(states, image)} of {config.model.latent} units dead, a number a seed", flush=True
        )


if __name__ == "__main__":
    main()
