"""The notebooks of docs/examples/notebooks are the programs of docs/examples, as scripts/notebooks.py writes them."""

import ast

import nbformat
import pytest

from scripts import notebooks

PROGRAMS = sorted(notebooks.EXAMPLES.glob("*.py"))


def test_every_program_has_a_notebook_and_the_page_leads_to_it():
    names = [path.stem for path in PROGRAMS]
    assert names and sorted(path.stem for path in notebooks.NOTEBOOKS.glob("*.ipynb")) == names
    page = (notebooks.EXAMPLES.parent / "examples.md").read_text()
    assert [name for name in names if f"(examples/notebooks/{name}.ipynb)" in page] == names


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_notebook_has_the_code_of_its_program(path):
    stored = nbformat.read(notebooks.NOTEBOOKS / f"{path.stem}.ipynb", as_version=4)
    nbformat.validate(stored)
    head, install, *cells = stored.cells
    assert head.cell_type == "markdown" and install.source.startswith("%pip install")
    code = "\n".join(cell.source for cell in cells)
    program = ast.parse(path.read_text())
    assert head.source == ast.get_docstring(program)
    assert {cell.cell_type for cell in cells} == {"code"} and len(cells) > 3
    assert ast.dump(ast.parse(code)) == ast.dump(ast.Module(program.body[1:], type_ignores=[]))
    comments = lambda text: [line.split("#")[1] for line in text.splitlines() if "#" in line]  # noqa: E731
    assert comments(code) == comments(path.read_text())
