"""The launch recipes, run against stand-ins for the schedulers: what they start, with what, and when again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lotto_jax.runs.results import read as read_results

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "scripts" / "launch"

# Takes the options of the script's #SBATCH lines and of its own, and runs the script as the first node would.
SBATCH = """
import os, re, subprocess, sys
given = [a for a in sys.argv[1:] if a.startswith("--")]
split = next(i for i, a in enumerate(sys.argv) if a.endswith(".sh"))
script, arguments = sys.argv[split], sys.argv[split + 1 :]
lines = re.findall(r"^#SBATCH (--[^ \\n]+)", open(script).read(), re.M)
options = dict(o[2:].partition("=")[::2] for o in [*lines, *sys.argv[1:split]])
nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
os.environ |= {"SLURM_JOB_ID": "4242", "SLURM_NTASKS": str(nodes * tasks), "SLURM_STEP_NUM_NODES": str(nodes)}
sys.exit(subprocess.run(["bash", script, *arguments]).returncode)
"""
# Starts the tasks of a step, all on this machine; the status of the step is the worst of theirs.
SRUN = """
import os, subprocess, sys
command = [a for a in sys.argv[1:] if not a.startswith("--kill")]
tasks = [
    subprocess.Popen(command, env=os.environ | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i),
                                                "SLURM_STEP_NODELIST": "localhost"})
    for i in range(int(os.environ["SLURM_NTASKS"]))
]
sys.exit(max(task.wait() for task in tasks))
"""
# What a process learns of the others from its surroundings.
TELLING = 'os.write(1, f"process {jax.process_index()} of {jax.process_count()}\\n".encode())  # in one piece\n'
PROBE = f"import os, jax\njax.distributed.initialize()\n{TELLING}"
RUN = f"import os, jax\nfrom lotto_jax.cli import main\ntry:\n    main()\nfinally:\n    {TELLING}"
NOTING = "import os, sys; open(os.environ['NOTES'], 'a').write(' '.join(sys.argv) + '\\n')\n"


@pytest.fixture
def launch(tmp_path):
    """A function that runs a recipe with Python programs standing in for commands; `notes` is what they noted."""
    notes = tmp_path / "notes"
    notes.touch()

    def run(command, stubs, **environment):
        for name, program in stubs.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!{sys.executable}\n{program}")
            path.chmod(0o755)
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        own = {**os.environ, "PATH": path, "NOTES": str(notes), "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        own |= {"PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=200)

    run.notes = notes
    return run


def test_slurm_starts_a_process_a_gpu_and_jax_finds_them(launch):
    command = ["sbatch", "--nodes=1", "--ntasks-per-node=2", "scripts/launch/slurm.sh"]
    done = launch(command, {"sbatch": SBATCH, "srun": SRUN, "lotto-jax": PROBE})
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["process 0 of 2", "process 1 of 2"]


def test_slurm_runs_a_configuration_in_two_processes(launch, tmp_path):
    fields = ["--config=tests/experiments/interrupted_config.py", "--config.imp.rounds=0", "--config.train.epochs=1"]
    fields.append("--config.evaluation.images=0")
    command = ["sbatch", "--ntasks-per-node=2", "scripts/launch/slurm.sh", *fields, f"--workdir={tmp_path / 'run'}"]
    done = launch(command, {"sbatch": SBATCH, "srun": SRUN, "lotto-jax": RUN})
    assert done.returncode == 0, done.stderr
    assert {row.arm for row in read_results(tmp_path / "run")} == {"dense"}
    assert {f"process {number} of 2" for number in (0, 1)} <= set(done.stdout.splitlines())


@pytest.mark.parametrize(("status", "noted"), [(143, 1), (1, 0), (0, 0)])
def test_slurm_queues_a_run_again_that_was_told_to_save_and_no_other(launch, status, noted):
    command = ["sbatch", "--ntasks-per-node=1", "scripts/launch/slurm.sh"]
    stubs = {"sbatch": SBATCH, "srun": SRUN, "lotto-jax": f"raise SystemExit({status})", "scontrol": NOTING}
    assert launch(command, stubs).returncode == status
    assert launch.notes.read_text().count("requeue 4242") == noted


@pytest.mark.parametrize(("statuses", "starts"), [((137, 0), 2), ((1,), 1), ((143,), 1), ((130,), 1)])
def test_a_box_goes_on_with_a_run_that_was_killed_and_no_other(launch, statuses, starts):
    program = f"{NOTING}raise SystemExit({statuses}[open(os.environ['NOTES']).read().count('a b.py') - 1])"
    done = launch(["bash", "scripts/launch/box.sh", "--config=a b.py"], {"lotto-jax": program}, PAUSE="0")
    assert done.returncode == statuses[-1]
    assert launch.notes.read_text().count("run --config=a b.py\n") == starts


def test_a_tpu_slice_is_made_once_and_every_worker_gets_the_command(launch):
    """The stand-in knows no slice at first."""
    missing = """
if 'describe' in sys.argv:
    created = 'create' in open(os.environ['NOTES']).read()
    print('READY') if created else sys.exit(1)
"""
    command = ["bash", "scripts/launch/tpu_vm.sh", "--config=a b.py", "--workdir=/mnt/runs"]
    slice_ = {"NAME": "lotto", "ZONE": "here", "TYPE": "v5litepod-16", "VERSION": "v2"}
    for starts in (1, 2):
        done = launch(command, {"gcloud": NOTING + missing}, **slice_)
        assert done.returncode == 0, done.stderr
        notes = launch.notes.read_text()
        assert notes.count("tpu-vm create lotto --accelerator-type=v5litepod-16 --version=v2 --zone=here") == 1
        assert notes.count("tpu-vm scp") == starts
        assert notes.count("tpu-vm ssh lotto --worker=all") == starts
        assert notes.count(r"lotto-jax run --config=a\ b.py --workdir=/mnt/runs") == starts
    taken_away = NOTING + "if 'describe' in sys.argv: print('PREEMPTED')"
    assert launch(command, {"gcloud": taken_away}, **slice_).returncode == 0
    notes = launch.notes.read_text()
    assert notes.count("tpu-vm delete lotto") == 1 and notes.count("tpu-vm create lotto") == 2
    done = launch(command, {}, **slice_ | {"ZONE": ""})
    assert done.returncode == 2 and done.stderr == "Set ZONE; docs/launch.md says to what.\n"


def test_the_manifest_is_a_jobset_of_the_hosts_of_one_slice():
    """Against the API's models, which drop what they do not know."""
    from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

    manifest = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    assert JobsetV1alpha2JobSet.from_dict(manifest).to_dict() == manifest
    misspelled = yaml.safe_load((LAUNCH / "jobset.yaml").read_text().replace("backoffLimit", "backOffLimit"))
    assert JobsetV1alpha2JobSet.from_dict(misspelled).to_dict() != misspelled
    (hosts,) = manifest["spec"]["replicatedJobs"]
    job = hosts["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    # What JAX and GKE go by: indexed jobs, as many pods as hosts, and as many chips as the slice has.
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns
    (mount,) = container["volumeMounts"]
    workdir = next(a for a in container["args"] if a.startswith("--workdir="))
    assert workdir.startswith(f"--workdir={mount['mountPath']}/")
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"]}
