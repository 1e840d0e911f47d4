"""What mkdocs does to pages before it shows them."""

import re
from pathlib import Path


def on_page_read_source(page, config):
    """The changelog is the file at the top of the repository, whose links begin there."""
    if page.file.src_uri != "changelog.md":
        return None
    text = Path(config.docs_dir, "..", "CHANGELOG.md").read_text(encoding="utf-8")
    return text.replace("](docs/", "](")


def on_page_content(html, **_):
    """Docstrings say :class:`Name`, as Sphinx has it; a page says Name."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)
