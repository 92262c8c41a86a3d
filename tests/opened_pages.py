"""Pages of reports in a real browser."""

from pathlib import Path
from typing import Any


def opened(browser: Any, path: Path, **options: Any) -> Any:
    """A page in a context of its own; `page.wrong` has its errors and its requests to a network."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(15_000)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("console", lambda m: page.wrong.append(m.text) if m.type == "error" else None)
    here = ("data:", "file:")
    page.on("request", lambda r: r.url.startswith(here) or page.wrong.append(r.url))
    page.goto(path.as_uri())
    return page
