"""The command line: `lotto-jax COMMAND`. JAX is imported only by the commands that need it."""

import argparse
import difflib
import inspect
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lotto_jax import __version__, cli_analyse, cli_metrics, cli_tickets, progress
from lotto_jax.training import topologies

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from lotto_jax.experiments.sweep import Job

DESCRIPTION = """\
Find winning lottery tickets in deep generative models.

  lotto-jax run --config=configs/quickstart.py --workdir=runs/quickstart
      Find tickets of a small autoencoder on bundled digits (half a minute), then write
      the table, the figures and report.html into runs/quickstart.

  lotto-jax run --config=configs/linear_ae_mnist.py --workdir=runs/mnist \\
      --config.dataset.data_dir=/data/tfds --config.imp.rounds=5
      Any field of a configuration can be set on the command line.

  lotto-jax run --config=configs/vae_cifar10.py --config=configs/dcgan_cifar10.py:cpu --workdir=runs/cifar10
  lotto-jax run --sweep=configs/table1.txt --workdir=runs/table1
      Several configurations, or those that a file lists one a line, each in a directory of its own:
      as many at a time as the GPUs or TPU chips of all hosts have room for, one at a time on a CPU.

  lotto-jax describe --config=configs/dcgan_cifar10.py
      Size of the configuration's networks, leaf by leaf, and what of it can be pruned.

  lotto-jax preflight --config=configs/dcgan_cifar10.py --topology=v5e:2x4
      Compile its programs for devices that need not be here: memory, collectives, hours.

  lotto-jax report --workdir=runs/mnist
      Make the table, figures and report.html again, also while the run goes on.

  lotto-jax report --workdir=runs/table1 --workdir=runs/table2 --out=runs/paper --paper
      One report of all these runs in the paper's arrangement, with its figures as PDF.

  lotto-jax evaluate --workdir=runs/vae --metrics=accuracy,frechet --classifier=runs/resnet18 --samples=2000
      Add metrics to a run from the states that it kept, without training again.

  lotto-jax analyse --workdir=runs/mnist --siblings=2
      Why its tickets win: barriers, overlaps of masks, signs, distances and dead units, in analysis.csv.

  lotto-jax ticket export --workdir=runs/mnist --name=both-winning-round05-seed0 ticket.safetensors
      Mask, rewound weights and provenance in one file that any JAX program can start from.

  lotto-jax new mine
      Write a configuration with a network and a metric of your own into mine/, to start from.

  lotto-jax weights convert pt_inception-2015-12-05-6726825d.pth
  lotto-jax fid generated/ real/
      Frechet Inception distance of two image folders (or npz statistics), as torch-fidelity computes it.

A run that was interrupted goes on when the same command is given again.
Exit status: 0 done, 143 preempted by SIGTERM and 130 by Ctrl-C with the state saved, 1 a fault (a wrong configuration
too), 2 a wrong command line.
"""


HINT = "lotto_jax/config.py lists the fields; fields of model, objective and optimizer have to be in the file first."


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of `lotto-jax`; exits with the status that the description states."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="lotto-jax", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"lotto-jax {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{run,describe,preflight,report,evaluate,analyse,ticket,new,fid,weights}"
    )
    run = commands.add_parser("run", help="run a configuration, or go on with it")
    run.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE[:VARIANT]",
        help="a file of configs/ or its bare name, or your own; several are a sweep, each runs in WORKDIR/NAME",
    )
    run.add_argument("--sweep", type=Path, metavar="FILE", help="a file that lists configurations, one a line")
    run.add_argument("--workdir", required=True, type=Path, help="directory of the run or the sweep, made if missing")
    run.add_argument(
        "--share",
        type=int,
        default=0,
        metavar="N",
        help="of a sweep: devices that each configuration gets; default: as many as it has tickets, at most all",
    )
    which: dict[str, Any] = {"required": True, "metavar": "FILE[:VARIANT]"}
    which["help"] = "a file of configs/ or its bare name, or your own"
    describe = commands.add_parser("describe", help="sizes of the networks of a configuration")
    describe.add_argument("--config", **which)
    preflight = commands.add_parser("preflight", help="what a run needs of devices that need not be here")
    preflight.add_argument("--config", **which)
    preflight.add_argument("--topology", required=True, metavar="NAME", help=topologies.NAMES)
    preflight.add_argument(
        "--only",
        default="",
        metavar="NAMES",
        help="programs to compile, separated by commas: --only=step is fast and says how long training takes",
    )
    preflight.add_argument("--json", action="store_true", help="one JSON object a run instead of a table")
    epilog = "--config.FIELD=VALUE sets a field, for instance --config.imp.rounds=5 or --config.seeds='(0, 1)'; "
    epilog += "lotto_jax/config.py explains them all, configs/README.md lists the files."
    run.epilog = describe.epilog = preflight.epilog = epilog
    report = commands.add_parser("report", help="tables, figures and report.html of a run, or what there is of a sweep")
    report.add_argument(
        "--workdir",
        required=True,
        action="append",
        type=Path,
        help="directory of a run or a sweep; several are merged into one report",
    )
    report.add_argument("--out", type=Path, metavar="DIR", help="where the report of several runs goes")
    report.add_argument("--paper", action="store_true", help="write the figures as PDF, too, into paper/")
    evaluate = commands.add_parser("evaluate", help="add metrics to a run that exists")
    if arguments[:1] == ["evaluate"]:  # these list the registered metrics, and so import JAX
        cli_metrics.add_evaluate_arguments(evaluate)
    cli_analyse.add_arguments(commands.add_parser("analyse", help="why the tickets of a search win"))
    cli_tickets.add_ticket_arguments(commands.add_parser("ticket", help="tickets as files: show, export, import"))
    cli_tickets.add_new_arguments(commands.add_parser("new", help="a configuration and a network to start from"))
    cli_metrics.add_fid_arguments(
        commands.add_parser("fid", help="FID, or a distance of DINOv2 or CLIP features, of two image sets")
    )
    cli_metrics.add_weights_arguments(commands.add_parser("weights", help="weights of Inception, DINOv2 and CLIP"))
    actions: dict[str, Callable[[], int]] = {
        "run": lambda: _sweep(args, overrides) if _is_sweep(args) else _run(args, overrides),
        "describe": lambda: _guarded(_describe, args, overrides),
        "preflight": lambda: _guarded(_preflight, args, overrides),
        "report": lambda: _report(args.workdir, args.out, args.paper),
        "evaluate": lambda: _evaluate(args),
        "analyse": lambda: _analyse(args),
        "ticket": lambda: _guarded(cli_tickets.run_ticket, args),
        "new": lambda: _guarded(cli_tickets.run_new, args),
        "fid": lambda: _guarded(cli_metrics.run_fid, args),
        "weights": lambda: _guarded(cli_metrics.run_weights, args),
    }
    args, rest = parser.parse_known_args(arguments)
    overrides = [a for a in rest if args.command in ("run", "describe", "preflight") and a.startswith("--config.")]
    if unknown := [a for a in rest if a not in overrides]:
        parser.error(f"unrecognized argument {unknown[0]!r}")
    if args.command == "run" and not (args.config or args.sweep):
        parser.error("run needs --config or --sweep")
    if args.command == "run" and args.share and not _is_sweep(args):
        parser.error("--share divides the devices among several configurations; give more of them, or leave it out")
    if args.command == "run" and args.share < 0:
        parser.error(f"--share is {args.share}; it takes a number of devices")
    try:
        sys.exit(actions[args.command]())
    except KeyboardInterrupt:
        print("Interrupted; what was saved before is there, and the same command goes on from it.", file=sys.stderr)
        sys.exit(130)


def load_config(path: str, overrides: list[str]) -> "ConfigDict":
    """The configuration of `FILE[:VARIANT]` with `--config.field=value` overrides applied, locked.

    Raises:
      ValueError: with one sentence, if the file or a field is not there or a value does not fit.
    """
    from absl import flags
    from ml_collections import config_flags

    from lotto_jax.config import flatten

    given, _, variant = path.partition(":")
    file = _config_file(given)
    # config_flags reports a field that does not exist by its last name only, so the fields are looked at first.
    fields = flatten(_get_config(file, variant).to_dict())
    for override in overrides:
        field = _field(override)
        if field not in fields:
            close = difflib.get_close_matches(field, fields, n=1)
            hint = f"did you mean config.{close[0]}?" if close else HINT
            raise ValueError(f"config.{field} is not a field of {given}; {hint}")
    chosen = f"{file}:{variant}" if variant else file
    values, arguments = flags.FlagValues(), ["lotto-jax", f"--config={chosen}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        values(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError) as error:
        said = str(error).strip().splitlines()[-1]
        if wrong := re.match(r"flag --config\.([\w.]+)=(.*?): ", said):
            field, value = wrong.groups()
            raise ValueError(
                f"config.{field} is {value!r}, but it takes a {type(fields[field]).__name__}, such as {fields[field]}."
            ) from error
        raise ValueError(f"The configuration cannot be set up: {said}") from error
    return values.config


def _config_file(name: str) -> str:
    """The file of a configuration: as it is given, or by its bare name one of the project's own, in a checkout or not.

    Raises:
      ValueError: if there is none.
    """
    if Path(name).is_file():
        return name
    package = Path(__file__).parent
    installed = package / "_configs" / "configs"
    own = (installed if installed.is_dir() else package.parent / "configs").glob("*.py")
    names = {p.stem: str(p) for p in own if "\ndef get_config(" in p.read_text()}
    if name in names:
        return names[name]
    close = difflib.get_close_matches(Path(name).stem, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the project has its own: {', '.join(sorted(names))}."
    raise ValueError(f"There is no configuration file {name!r}; {hint}")


def _get_config(file: str, variant: str) -> "ConfigDict":
    """What `get_config` of a file returns. Its directory, the one above and the current one can be imported from."""
    place = Path(file).resolve().parent
    sys.path[:0] = [p for p in dict.fromkeys((os.getcwd(), str(place), str(place.parent))) if p not in sys.path]
    try:
        namespace = runpy.run_path(file)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}; correct it there.") from error
    except ImportError as error:
        raise ValueError(f"{file} imports what is not there ({error}); install it, or correct the name.") from error
    except Exception as error:  # whatever the user's file raises
        raise ValueError(_failure(file, error)) from error
    if not callable(make := namespace.get("get_config")):
        raise ValueError(f"{file} has no function get_config; define one that returns a configuration.")
    if variant and not inspect.signature(make).parameters:
        raise ValueError(f"{file} has no variants, but {variant!r} is asked for; leave ':{variant}' out.")
    try:
        config = make(*[variant] if variant else [])
    except Exception as error:  # as above
        said = f"{file}: {error}" if isinstance(error, ValueError) else _failure(file, error)
        raise ValueError(said) from error
    if not hasattr(config, "to_dict"):
        raise ValueError(f"get_config of {file} returns a {type(config).__name__}; it has to return a ConfigDict.")
    return config


def _failure(file: str, error: Exception) -> str:
    """What a user's configuration file raises, with the line of it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f", line {lines[-1]}," if lines else ""
    # ConfigDict quotes its message, and lists all fields.
    said = str(error.args[0] if error.args else error).strip('"').replace("\\n", "\n").splitlines() or [""]
    said = [line for line in said if not line.startswith("Other fields present")]
    return f"{file}{where} fails with {type(error).__name__}: {' '.join(said)}; correct it there."


def _guarded(command: Callable[..., None], *arguments: Any) -> int:
    try:
        command(*arguments)
    except (ValueError, OSError) as error:
        return _fault(error)
    except Exception as error:
        if type(error).__name__ == "StorageError":  # known by name: its module imports JAX
            return _fault(error)
        raise
    return 0


def _fault(error: BaseException) -> int:
    progress.fault(error)
    return 1


def _run(args: argparse.Namespace, overrides: list[str]) -> int:
    from lotto_jax.training.preemption import Preempted, Preemption

    preemption = Preemption().install()
    try:
        config = load_config(args.config[0], overrides)
    except ValueError as error:
        return _fault(error)

    progress.quiet()
    from lotto_jax.experiments.run import run
    from lotto_jax.experiments.trainer import Diverged
    from lotto_jax.training import hosts
    from lotto_jax.training.checkpoints import StorageError

    try:
        run(config, args.workdir, preemption)
    except Preempted:
        print(f"Preempted; the state is saved, and the same command goes on with {args.workdir}.", file=sys.stderr)
        hosts.leave(preemption.status)
    except (ValueError, OSError, StorageError, Diverged, hosts.Lost) as error:
        hosts.complain(error)
        hosts.leave(1)
    except Exception:
        traceback.print_exc()
        hosts.leave(1)
    return _report([args.workdir]) if hosts.is_first() else 0


def _is_sweep(args: argparse.Namespace) -> bool:
    return args.sweep is not None or len(args.config) > 1


def _sweep(args: argparse.Namespace, overrides: list[str]) -> int:
    from lotto_jax.experiments import sweep
    from lotto_jax.training.hosts import Lost
    from lotto_jax.training.preemption import Preemption

    preemption = Preemption().install()
    try:
        sources = args.config + (sweep.read(args.sweep) if args.sweep else [])
        failed = sweep.run(_jobs(sources, overrides), args.workdir, args.share, preemption)
    except (ValueError, OSError, Lost) as error:
        return preemption.status if preemption.requested else _fault(error)
    for name, reason in failed.items():
        print(f"lotto-jax: {name}: {reason}", file=sys.stderr)
    if preemption.requested:
        print(f"Preempted; all states are saved, and the same command goes on with {args.workdir}.", file=sys.stderr)
        return preemption.status
    return 1 if failed else 0


def _jobs(sources: list[str], overrides: list[str]) -> "list[Job]":
    """The configurations of a sweep, each with the overrides of fields that it has.

    Raises:
      ValueError: with one sentence, as `load_config`, if an override is of a field that none of them has, or if a
        configuration makes no sense.
    """
    from lotto_jax.config import flatten, validate
    from lotto_jax.experiments.sweep import Job

    fields = {source: flatten(load_config(source, []).to_dict()) for source in sources}
    for override in overrides:
        if not any(_field(override) in own for own in fields.values()):
            load_config(sources[0], [override])  # which says so
    own = {source: [o for o in overrides if _field(o) in fields[source]] for source in sources}
    jobs = [Job(source, own[source], load_config(source, own[source])) for source in sources]
    for job in jobs:
        try:
            validate(job.config)
        except ValueError as error:
            raise ValueError(f"{job.source}: {error}") from error
    return jobs


def _field(override: str) -> str:
    return override.removeprefix("--config.").partition("=")[0]


def _describe(args: argparse.Namespace, overrides: list[str]) -> None:
    from lotto_jax import config as configuration
    from lotto_jax.data import sources
    from lotto_jax.experiments import build
    from lotto_jax.experiments.describe import describe

    config = load_config(args.config, overrides)
    configuration.validate(config)
    data = config.dataset
    shape = sources.image_shape(data.name, data.data_dir, data.image_size)
    network = build.network_of(config)
    labelled = not isinstance(network, build.Network) or network.objective == "classification"
    classes = sources.classes(data.name, data.data_dir, data.image_size) if labelled else None
    print(describe(build.objective(config, shape, classes)))


def _preflight(args: argparse.Namespace, overrides: list[str]) -> None:
    os.environ.update(topologies.environment(args.topology))
    from lotto_jax.experiments.preflight import as_json, preflight, table

    topology = topologies.of(args.topology)
    only = args.only.split(",") if args.only else ()
    for report in preflight(load_config(args.config, overrides), topology, only):
        print(as_json(report) if args.json else table(report))


def _evaluate(args: argparse.Namespace) -> int:
    progress.quiet()
    from lotto_jax.experiments.evaluate import evaluate
    from lotto_jax.training.checkpoints import StorageError

    try:
        names = ("metrics", "classifier", "features", "samples", "every", "data_dir", "force")
        evaluate(args.workdir, **{name: getattr(args, name) for name in names})
    except (ValueError, OSError, StorageError) as error:
        return _fault(error)
    return _report([args.workdir])


def _analyse(args: argparse.Namespace) -> int:
    from lotto_jax.training.preemption import Preempted, Preemption

    preemption = Preemption().install()
    progress.quiet()
    from lotto_jax.experiments.analyse import analyse
    from lotto_jax.experiments.trainer import Diverged
    from lotto_jax.training.checkpoints import StorageError

    try:
        analyse(args.workdir, args.only, args.siblings, args.every, args.data_dir, preemption)
    except Preempted:
        print("Preempted; the same command goes on.", file=sys.stderr)
        return preemption.status
    except (ValueError, OSError, StorageError, Diverged) as error:
        return _fault(error)
    return _report([args.workdir])


def _report(workdirs: list[Path], out: Path | None = None, paper: bool = False) -> int:
    from lotto_jax.experiments.report import merge, write

    try:
        if len(workdirs) > 1 and out is None:
            raise ValueError("--workdir is given several times; say with --out=DIR where their report goes.")
        print(merge(workdirs, out, paper) if out else write(workdirs[0], paper))
    except (ValueError, OSError) as error:
        return _fault(error)
    return 0
