"""Names: an entry of a table or the user's own code, and one sentence with the remedy where it is neither."""

import sys
import uuid

import pytest

from lotto_jax import names


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the current directory, which nothing else makes importable; returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])

    def write(text, name=None):
        name = name or f"module_{uuid.uuid4().hex}"  # a name of its own: imported modules stay
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def sentence(call, *args):
    with pytest.raises(ValueError) as error:
        call(*args)
    text = str(error.value)
    assert text.startswith("config.x is ") and "\n" not in text and text[-1] in ".?"
    return text


def test_an_attribute_of_a_module_in_the_current_directory_is_found(module, tmp_path):
    name = module("def load():\n    return 7")
    assert names.resolve(f"{name}:load", "config.x")() == 7
    assert sys.path[0] == str(tmp_path)
    names.resolve(f"{name}:load", "config.x")
    assert sys.path.count(str(tmp_path)) == 1


def test_an_attribute_of_a_module_in_a_package_is_found():
    from os import path

    assert names.resolve("os.path:join", "config.x") is path.join


def test_a_module_that_is_not_there_is_named_with_the_directory_it_needs(module):
    for name in ("no_such_module", "no_such_module.data"):
        text = sentence(names.resolve, f"{name}:load", "config.x")
        for part in (f"'{name}:load'", "no module no_such_module;", "directory", "PYTHONPATH"):
            assert part in text
    assert "no module xml.no_such_part;" in sentence(names.resolve, "xml.no_such_part:load", "config.x")


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("\nimport no_such_library", ("line 2", "No module named 'no_such_library'")),
        ("from os import no_such_name", ("line 1", "ImportError", "no_such_name")),
        ("\n\nlimit = 1 / 0", ("line 3", "ZeroDivisionError: division by zero")),
    ],
)
def test_what_fails_inside_the_module_is_told_with_its_place(module, code, parts):
    name = module(code)
    text = sentence(names.resolve, f"{name}:load", "config.x")
    for part in (f"importing {name} fails", f"{name}.py", *parts):
        assert part in text


def test_a_package_whose_own_import_fails_is_not_called_missing(module):
    missing = f"module_{uuid.uuid4().hex}"
    name = module(f"import {missing}.part")
    assert f"importing {name} fails" in sentence(names.resolve, f"{name}:load", "config.x")


def test_a_syntax_error_is_told_with_file_and_line(module):
    name = module("x = 1\ndef load(:\n    pass")
    text = sentence(names.resolve, f"{name}:load", "config.x")
    assert f"{name}.py, line 2," in text and "not valid Python" in text


def test_an_attribute_that_is_not_there_comes_with_close_ones(module):
    name = module("def load_images(): pass\ndef other(): pass")
    text = sentence(names.resolve, f"{name}:load_image", "config.x")
    assert "no load_image;" in text and "load_images" in text and "other" not in text and f"{name}.py" in text
    assert "define it there" in sentence(names.resolve, f"{name}:zzz", "config.x")


@pytest.mark.parametrize("name", [":load", "os:", "os:path:join", ".os:path", "a/b.py:load", "mnist:3.0.1"])
def test_a_colon_in_anything_else_is_refused_with_the_form(name):
    assert "package.module:attribute" in sentence(names.resolve, name, "config.x")


def test_choose_takes_an_entry_or_a_reference_and_lists_both_otherwise():
    choices = {"square": 4, "cube": 8}
    assert names.choose("cube", choices, "config.x") == 8
    assert names.choose("math:pi", choices, "config.x") == __import__("math").pi
    text = sentence(names.choose, "ball", choices, "config.x")
    for part in ("'ball'", "cube, square", "package.module:attribute"):
        assert part in text
    assert names.is_reference("math:pi") and not names.is_reference("cube")
