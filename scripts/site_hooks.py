"""For mkdocs.yml: README.md is the first page, configs/README.md a guide, pictures come from .assets, notebooks too."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Where links of README.md, of configs/README.md and of the pages in docs/ lead on the site.
LINKS = (
    (r"\]\((?:\.\./)?docs/", "]("),
    (r"\]\((?:\.\./)?configs/README\.md", "](configs.md"),
    (r"\]\((?:\.\./)?(?:README\.md)", "](index.md"),
    (r"\]\((?:\.\./)?\.assets/", "](assets/"),
    (r"\]\(examples/notebooks/", "](notebooks/"),
    (r"\[([^]]*)\]\((?:\.\./)?(?:lotto_jax|configs|scripts|tests)/[^)]*\)", r"\1"),  # files of the source
)


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside of docs/."""
    sources = {"index.md": ROOT / "README.md", "configs.md": ROOT / "configs" / "README.md"}
    sources |= {f"assets/{path.name}": path for path in (ROOT / ".assets").glob("*.png")}
    sources |= {f"notebooks/{path.name}": path for path in (ROOT / "docs" / "examples" / "notebooks").glob("*.ipynb")}
    for uri, path in sources.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are on the site."""
    for pattern, replacement in LINKS:
        markdown = re.sub(pattern, replacement, markdown)
    return markdown
