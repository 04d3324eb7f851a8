"""`lotto-jax ticket` and `lotto-jax new`: arguments, and what they run."""

import argparse
from pathlib import Path

CONFIG = '''"""Winning tickets of a network of one's own, on the bundled 8x8 digits.

lotto-jax run --config={directory}/my_config.py --workdir={directory}/run
"""

from lotto_jax import config as base


def get_config():
    config = base.default()
    config.seeds = (0, 1, 2)
    config.dataset.name = "digits"  # or "folder", with config.dataset.data_dir; or a TFDS name
    config.model = {{"name": "my_nets:MyAutoencoder", "latent": 16}}
    config.optimizer = {{"name": "adam", "learning_rate": 1e-3}}
    config.train.epochs = 20
    config.imp.rounds = 6
    config.imp.fraction = 0.3
    config.metrics.names = ("my_nets:PSNR",)
    return config
'''
NETS = '''"""An autoencoder and a metric of one's own."""

import flax.linen as nn
import numpy as np

from lotto_jax.metrics import Metric


class MyAutoencoder(nn.Module):
    """Called as `(image, train)` on images in [0, 1]; the top-level keys of its params are its components."""

    latent: int = 16

    @nn.compact
    def __call__(self, image, train):
        x = image.reshape(image.shape[0], -1)
        z = nn.relu(nn.Dense(self.latent, name="encoder")(x))
        return nn.Dense(x.shape[1], name="decoder")(z).reshape(image.shape)


def psnr(given):
    """Peak signal-to-noise ratio of the reconstructions of the held-out images, in dB."""
    errors = (given.reconstructions / 255.0 - given.originals / 255.0) ** 2
    return float(np.mean(-10 * np.log10(errors.mean(axis=(1, 2, 3)) + 1e-12)))


PSNR = Metric("psnr", needs=("originals", "reconstructions"), compute=psnr, better="higher")
'''


def add_new_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax new DIR`."""
    parser.add_argument("directory", type=Path, help="made if missing; gets my_config.py and my_nets.py")


def run_new(args: argparse.Namespace) -> None:
    """Write a configuration and a module that run, to start from."""
    directory: Path = args.directory
    for name in ("my_config.py", "my_nets.py"):
        if (directory / name).exists():
            raise ValueError(f"There is a {name} in {directory} already; choose another directory.")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "my_config.py").write_text(CONFIG.format(directory=directory))
    (directory / "my_nets.py").write_text(NETS)
    print(f"Wrote {directory}/my_config.py and {directory}/my_nets.py. Find tickets with:")
    print(f"  lotto-jax run --config={directory}/my_config.py --workdir={directory}/run")


def add_ticket_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax ticket show|export|import`."""
    actions = parser.add_subparsers(dest="action", required=True)
    show = actions.add_parser("show", help="provenance of a ticket file, and what is left of every leaf")
    show.add_argument("path", type=Path, help="a ticket file")
    export = actions.add_parser("export", help="mask, rewound weights and provenance of a ticket in one file")
    export.add_argument("--workdir", type=Path, required=True, help="directory of the run")
    export.add_argument("--name", default="", help="of the ticket, a directory of tickets/; default: list them")
    export.add_argument("path", type=Path, nargs="?", help="safetensors file to write; default: NAME.safetensors")
    imported = actions.add_parser("import", help="take a ticket file over into a run whose networks it fits")
    imported.add_argument("--workdir", type=Path, required=True, help="directory of the run")
    imported.add_argument("path", type=Path, help="a ticket file")


def run_ticket(args: argparse.Namespace) -> None:
    """Show, export or import a ticket."""
    from lotto_jax import progress, tickets
    from lotto_jax.runs import tickets as stored

    progress.quiet()
    if args.action == "show":
        print(tickets.show(tickets.load(args.path)))
    elif args.action == "import":
        from lotto_jax.experiments.imported import import_ticket

        print(f"Wrote {import_ticket(args.workdir, args.path)}")
    elif not args.name:
        names = stored.names(args.workdir)
        if not names:
            raise ValueError(f"The run in {args.workdir} has no tickets yet; give its command again first.")
        print("\n".join(names))
    else:
        path = args.path or Path(f"{args.name}.safetensors")
        tickets.export(args.workdir, args.name, path)
        print(f"Wrote {path}")
