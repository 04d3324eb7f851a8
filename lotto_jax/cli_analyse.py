"""Arguments of `lotto-jax analyse --workdir=DIR`."""

import argparse
from pathlib import Path


def _count(text: str, least: int) -> int:
    if not (text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"it is {text!r}, but takes an integer of at least {least}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the search, finished or not")
    parser.add_argument(
        "--only",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="A,B",
        help="weights_left, overlap, signs, distance, dead_units, barrier; default: all",
    )
    parser.add_argument(
        "--siblings",
        type=lambda text: _count(text, 2),
        default=0,
        metavar="N",
        help="first train N copies of every winning ticket with other orders of the data, in WORKDIR/siblings",
    )
    parser.add_argument(
        "--every", type=lambda text: _count(text, 1), default=1, metavar="K", help="copies of every K-th round only"
    )
    parser.add_argument("--data-dir", default="", metavar="DIR", help="where datasets lie; default: the run's")
