"""`lotto-jax evaluate`, `lotto-jax fid` and `lotto-jax weights`: arguments, and what the last two run."""

import argparse
from pathlib import Path


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax evaluate --workdir=DIR`."""
    from lotto_jax.metrics.registry import METRICS

    parser.add_argument("--workdir", required=True, type=Path, help="directory of the run, finished or not")
    parser.add_argument(
        "--metrics",
        type=lambda text: [name for name in text.split(",") if name],
        default=[],
        metavar="A,B",
        help=f"{', '.join(METRICS)}, or package.module:attribute of your own; default: the run's",
    )
    parser.add_argument("--classifier", default="", metavar="DIR", help="run directory of a classifier of such images")
    parser.add_argument(
        "--features",
        choices=("auto", "inception", "classifier"),
        default="",
        help="of samples; default: the run's",
    )
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="images a ticket draws; default: the run's")
    parser.add_argument("--every", type=int, default=0, metavar="K", help="only every K-th round; default: the run's")
    parser.add_argument("--data-dir", default="", metavar="DIR", help="where datasets lie; default: the run's")
    parser.add_argument("--force", action="store_true", help="measure again what is there")


def add_fid_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax fid A B`."""
    parser.add_argument("generated", help="folder of images, or npz file with mu and sigma")
    parser.add_argument(
        "reference", help="folder of images, or npz file; statistics of a folder are kept in the user's cache"
    )
    parser.add_argument(
        "--resize",
        choices=("tf1", "pytorch", "clean"),
        default="tf1",
        help="tf1 (TTUR, ADM, torch-fidelity), pytorch (pytorch-fid) or clean (clean-fid)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is faster and not comparable"
    )
    parser.add_argument("--weights", type=Path, help="safetensors file instead of the one in the user's cache")
    parser.add_argument("--folds", type=int, default=0, help="also print mean and standard error over so many folds")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step; does not change the result")


def run_fid(args: argparse.Namespace) -> None:
    """Print the distance, and what it was computed with."""
    from lotto_jax.metrics.extractors import inception
    from lotto_jax.metrics.fid import fid, fid_folds

    extractor = inception(args.weights, args.resize, args.dtype)
    value = fid(args.generated, args.reference, extractor, args.batch_size)
    print(f"FID {value:.4f}  ({extractor.identifier})")
    if args.folds:
        folded = fid_folds(args.generated, args.reference, extractor, args.folds, args.batch_size)
        print(
            f"FID over {args.folds} folds of {folded.images} images: {folded.mean:.4f} +- "
            f"{folded.standard_error:.4f} (mean, standard error)"
        )


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax weights convert PATH` and `lotto-jax weights fetch`."""
    actions = parser.add_subparsers(dest="action", required=True)
    convert = actions.add_parser("convert", help="convert a downloaded PyTorch checkpoint of the FID Inception network")
    convert.add_argument("path", type=Path, help="pt_inception-2015-12-05-6726825d.pth, or torch-fidelity's copy of it")
    fetch = actions.add_parser("fetch", help="download that checkpoint (96 MB) and convert it")
    for action in (convert, fetch):
        action.add_argument("--output", type=Path, help="safetensors file to write instead of the user's cache")


def run_weights(args: argparse.Namespace) -> None:
    """Convert or fetch, and print where the weights are."""
    from lotto_jax.metrics import weights

    path = weights.convert(args.path, args.output) if args.action == "convert" else weights.fetch(args.output)
    print(f"Wrote {path}")
