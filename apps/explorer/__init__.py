"""The explorer: pages for a browser, which speak JSON-RPC to the node that serves them."""

from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
CONTENT_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def load_pages() -> dict[str, tuple[str, bytes]]:
    """Content type and content of every file, by its path on the server: `/` is the page itself. Raises: OSError."""
    files = [file for file in STATIC.rglob("*") if file.suffix in CONTENT_TYPES]
    pages = {
        f"/static/{file.relative_to(STATIC).as_posix()}": (CONTENT_TYPES[file.suffix], file.read_bytes())
        for file in files
    }
    return {"/": pages.pop("/static/index.html"), **pages}
