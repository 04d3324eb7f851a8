"""The command `lotto-jax`, or `python -m lotto_jax`."""

import sys
from importlib.util import find_spec

# Some packages of the extra `run`; an installation has all of them or, for `lotto_jax.pruning` alone, none.
NEEDED = ("flax", "jinja2", "ml_collections", "optax", "orbax", "tqdm")


def main() -> None:
    """Run it, or say what an installation without the extra `run` lacks."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f"lotto-jax: The package {missing[0]} is not installed; runs need pip install 'lotto_jax[run]'.")
    from lotto_jax.cli import main as command

    command()


if __name__ == "__main__":
    main()
