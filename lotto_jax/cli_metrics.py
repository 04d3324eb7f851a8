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
        choices=("auto", "inception", "dinov2", "clip", "classifier"),
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
        "--features",
        choices=("inception", "dinov2", "clip"),
        default="inception",
        help="inception: FID; dinov2: the same distance of DINOv2's features; clip: CMMD, of folders",
    )
    parser.add_argument(
        "--resize",
        choices=("tf1", "pytorch", "clean"),
        default="tf1",
        help="of Inception: tf1 (TTUR, ADM, torch-fidelity), pytorch (pytorch-fid) or clean (clean-fid)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is faster and not comparable"
    )
    parser.add_argument("--weights", type=Path, help="safetensors file instead of the one in the user's cache")
    parser.add_argument("--folds", type=int, default=0, help="also print mean and standard error over so many folds")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step; does not change the result")


def run_fid(args: argparse.Namespace) -> None:
    """Print the distance, and what it was computed with."""
    from lotto_jax.metrics.cmmd import cmmd, cmmd_folds
    from lotto_jax.metrics.extractors import features, inception, transformer
    from lotto_jax.metrics.fid import fid, fid_folds

    if args.features == "inception":
        extractor = inception(args.weights, args.resize, args.dtype)
    else:
        extractor = transformer(args.features, args.weights)
    if args.features == "clip":
        sides = (features(side, extractor, None, args.batch_size)["class"] for side in (args.generated, args.reference))
        name, (generated, real) = "CMMD", sides
        value = cmmd(generated, real)
    else:
        name = "FID" if args.features == "inception" else "FD DINOv2"
        value = fid(args.generated, args.reference, extractor, args.batch_size)
    print(f"{name} {value:.4f}  ({extractor.identifier})")
    if args.folds:
        if args.features == "clip":
            folded = cmmd_folds(generated, real, args.folds)
        else:
            folded = fid_folds(args.generated, args.reference, extractor, args.folds, args.batch_size)
        print(
            f"{name} over {args.folds} folds of {folded.images} images: {folded.mean:.4f} +- "
            f"{folded.standard_error:.4f} (mean, standard error)"
        )


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lotto-jax weights convert PATH` and `lotto-jax weights fetch`."""
    actions = parser.add_subparsers(dest="action", required=True)
    convert = actions.add_parser("convert", help="convert a downloaded checkpoint of Inception, DINOv2 or CLIP")
    convert.add_argument(
        "path",
        type=Path,
        help="pt_inception-2015-12-05-6726825d.pth (or torch-fidelity's copy of it), or model.safetensors of "
        "facebook/dinov2-base or openai/clip-vit-base-patch16",
    )
    fetch = actions.add_parser("fetch", help="download the Inception checkpoint (96 MB) and convert it")
    for action in (convert, fetch):
        action.add_argument("--output", type=Path, help="safetensors file to write instead of the user's cache")


def run_weights(args: argparse.Namespace) -> None:
    """Convert or fetch, and print where the weights are."""
    from lotto_jax.metrics import vit_weights, weights

    if args.action == "fetch":
        path = weights.fetch(args.output)
    else:
        tensors = weights.read(args.path)
        network = vit_weights.recognized(tensors)
        if network is None:
            path = weights.convert(args.path, args.output)
        else:
            path = vit_weights.convert(args.path, tensors, network, args.output)
    print(f"Wrote {path}")
