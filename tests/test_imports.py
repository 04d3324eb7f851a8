"""Imports point one way, and importing the pruning functions drags in nothing else."""

import ast
import builtins
import dis
import subprocess
import sys
import types
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "lotto_jax"
BOTTOM = {"names", "progress", "config"}  # import nothing of this package
# Each layer may import the ones before it, the bottom, and its own modules.
LAYERS = [
    {"pruning"},
    {"models", "data"},
    {"objectives"},
    {"training"},
    {"metrics", "analysis"},
    {"runs"},
    {"reports", "tickets", "export"},
    {"experiments"},
    {"cli_analyse", "cli_metrics", "cli_tickets"},
    {"cli"},
    {"__main__"},
]
ALLOWED = {layer: BOTTOM.union(*LAYERS[:i]) for i, group in enumerate(LAYERS) for layer in group}
ALLOWED |= {layer: set() for layer in BOTTOM}


def imported(path):
    """Names of the layers of this package that a module imports, at any depth of nesting."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("lotto_jax.") and not n.endswith("__")}
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


def test_sparse_training_imports_optax_besides():
    for path in (PACKAGE / "pruning" / "sparse").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                root = name.split(".")[0]
                assert root in sys.stdlib_module_names or root in {"jax", "jaxtyping", "lotto_jax", "optax"}, name
                assert root != "lotto_jax" or name.startswith("lotto_jax.pruning"), f"{path.name} imports {name}"


def test_importing_pruning_loads_no_other_framework():
    others = ("flax", "optax", "orbax", "tensorflow")
    code = f"import sys, lotto_jax.pruning; print([m for m in {others} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.stdout.strip() == "[]", result.stderr


def test_no_private_jax_api_is_used():
    for path in [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "scripts").rglob("*.py")]:
        assert "jax._src" not in path.read_text(), path


def test_every_global_name_is_defined():
    """Linters cannot say so: the axes of jaxtyping's annotations look like names to them."""

    def codes(code):
        return [code, *(inner for c in code.co_consts if isinstance(c, types.CodeType) for inner in codes(c))]

    for path in PACKAGE.rglob("*.py"):
        module = compile(path.read_text(), str(path), "exec")
        defined = {i.argval for i in dis.get_instructions(module) if i.opname == "STORE_NAME"}
        read = {i.argval for code in codes(module) for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        unknown = read - defined - vars(builtins).keys() - {"__file__"}
        assert not unknown, f"{path.relative_to(PACKAGE)} reads {sorted(unknown)}"
