"""Every public name has a docstring, and is on a page of the site (`mkdocs build` must have been run)."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "site"
MODULES = ["lotto_jax.pruning", "lotto_jax.pruning.optax", "lotto_jax.pruning.patterns", "lotto_jax.export"]
MODULES.append("lotto_jax.tickets")


def public(module):
    """`__all__`, or what the module itself defines without an underscore."""
    if hasattr(module, "__all__"):
        return module.__all__
    mine = lambda x: getattr(x, "__module__", None) == module.__name__  # noqa: E731
    return [n for n, x in vars(module).items() if not n.startswith("_") and callable(x) and mine(x)]


@pytest.fixture(scope="module")
def anchors():
    """The headings of all pages, by their ids, and whether text follows before the next one."""
    assert SITE.is_dir(), "the site is not built; run scripts/test.sh --docs"
    found = {}
    for path in SITE.glob("api/*/index.html"):
        parts = re.split(r'id="(lotto_jax[\w.]*)"', path.read_text())
        found |= {name: "<p>" in text for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_described_and_on_the_site(name, anchors):
    module = importlib.import_module(name)
    names = public(module)
    assert len(names) >= 4 and name in anchors
    for each in names:
        value = getattr(module, each)
        if inspect.isfunction(value) or inspect.isclass(value) or inspect.ismodule(value):
            assert (inspect.getdoc(value) or "").strip(), f"{name}.{each} has no docstring"
        assert anchors.get(f"{name}.{each}"), f"{name}.{each} is not on the site, or without a description"
