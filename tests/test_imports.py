"""Imports point one way, and importing the pruning functions drags in nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "lotto_jax"
# Each layer may import those before it, and its own modules; layers in one group may not import each other,
# but for reports, which read what experiments write.
ALLOWED = {
    "names": set(),
    "pruning": set(),
    "models": {"pruning"},
    "data": {"names", "pruning"},
    "objectives": {"pruning", "models", "data"},
    "training": {"pruning", "models", "data", "objectives"},
    "metrics": {"pruning", "models", "data", "objectives", "training"},
    "experiments": {"pruning", "models", "data", "objectives", "training", "metrics", "config"},
    "reports": {"pruning", "models", "data", "objectives", "training", "metrics", "experiments"},
    "config": set(),
    "cli_metrics": {"metrics"},
    "cli": {"training", "metrics", "experiments", "reports", "config", "data", "cli_metrics"},
}


def imported(path):
    """Names of the layers of this package that a module imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("lotto_jax.")}
    return found


def test_imports_point_one_way():
    seen = set()
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        seen.add(layer)
        wrong = imported(path) - ALLOWED[layer] - {layer}
        assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"
    assert seen == set(ALLOWED)


def test_pruning_imports_only_jax_numpy_and_jaxtyping():
    for path in (PACKAGE / "pruning").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for root in {n.split(".")[0] for n in names} - set(sys.stdlib_module_names):
                assert root in {"jax", "numpy", "jaxtyping", "lotto_jax"}, f"{path.name} imports {root}"


def test_importing_pruning_loads_no_other_framework():
    others = ("flax", "optax", "orbax", "tensorflow")
    code = f"import sys, lotto_jax.pruning; print([m for m in {others} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.stdout.strip() == "[]", result.stderr


def test_no_private_jax_api_is_used():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")]:
        assert "jax._src" not in path.read_text(), path
