"""MkDocs hooks that add the repository root's Markdown files to the site as pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

# Each root file and the page that shows it.
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add the root's Markdown files as pages.

    Args:
        files: The files below `docs`.
        config: The site's configuration.

    Returns:
        The same files and the pages.
    """
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=_link_within_site((root / name).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point a page's links to the root's files at their pages.

    Args:
        markdown: The page's source.

    Returns:
        The source with links within the site.
    """
    return _link_within_site(markdown)


def _link_within_site(markdown: str) -> str:
    """Convert links that work in the repository into links that work in the site."""
    markdown = markdown.replace("](docs/", "](")
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}").replace(f"]({name}", f"]({page}")
    return markdown
