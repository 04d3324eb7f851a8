"""Write docs/examples/notebooks/: each program of docs/examples as a notebook, by jupytext.

.venv-docs/bin/python scripts/notebooks.py
"""

import ast
from pathlib import Path

import jupytext
import nbformat

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
NOTEBOOKS = EXAMPLES / "notebooks"
INSTALL = '%pip install -q "lotto_jax[run]"'
ALSO = {"equinox_mlp": " equinox", "haiku_mlp": " dm-haiku"}


def notebook(path: Path) -> nbformat.NotebookNode:
    """A program as a notebook: its docstring, what to install, and its statements in cells of a paragraph."""
    program = path.read_text()
    docstring = ast.get_docstring(ast.parse(program)) or ""
    node = jupytext.reads(program, fmt="py:light")
    head = [nbformat.v4.new_markdown_cell(docstring), nbformat.v4.new_code_cell(INSTALL + ALSO.get(path.stem, ""))]
    node.cells = head + node.cells[1:]  # the first one is the docstring
    node.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for number, cell in enumerate(node.cells):
        cell.id = f"cell-{number}"  # they are random otherwise
        cell.metadata = {}
    return node


def main() -> None:
    """Write all of them."""
    NOTEBOOKS.mkdir(exist_ok=True)
    for path in sorted(EXAMPLES.glob("*.py")):
        nbformat.write(notebook(path), NOTEBOOKS / f"{path.stem}.ipynb")


if __name__ == "__main__":
    main()
