"""What the wheel says of where the project lives: given to the build by PROJECT_URL, and left out without it.

`PROJECT_URL=https://host/owner/lotto_jax python -m build` adds the project's URLs, and makes the relative links and
pictures of README.md absolute, as the page of a package index needs them.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {
    "Homepage": "",
    "Documentation": "/tree/HEAD/docs",
    "Issues": "/issues",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
}
_LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|#)([^)]+\))")


def absolute(readme: str, url: str) -> str:
    """README.md with links into the repository at `url`; pictures are the files themselves."""
    return _LINK.sub(lambda m: f"{m[1]}{url}/{'raw' if m[1].startswith('!') else 'blob'}/HEAD/{m[2]}", readme)


class Hook(MetadataHookInterface):
    """Sets the fields that pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add `readme` and, if they are known, `urls`."""
        text, url = (Path(self.root) / "README.md").read_text(), os.environ.get("PROJECT_URL", "").rstrip("/")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, url) if url else text}
        if url:
            metadata["urls"] = {name: url + page for name, page in PAGES.items()}
