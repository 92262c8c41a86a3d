"""Save the source distribution of NAME==VERSION in the working folder: python pip_sdist.py …

It takes the options of `pip download`, but runs nothing of the package: no command of pip downloads
a source distribution without running its build backend for its metadata. So the file is found by
pip's own index code with pip's own configuration, and saved by pip's own session (proxy,
certificates, credentials, cache). It is run by the Python that has pip, as a process of its own,
because this is not an interface that pip promises; it imports nothing of hbr.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

try:
    from pip._internal.commands.download import DownloadCommand
except ImportError as error:
    sys.exit(f"ERROR: this pip is not one that hbr knows: {error}")


class SaveSdist(DownloadCommand):
    """`pip download` that stops before anything is built."""

    def run(self, options: Any, args: list[str]) -> int:
        """Save the one file."""
        try:
            self._save(options, args[0])
        except Exception as error:  # also where the inside of a later pip is another
            print(f"ERROR: {error}")  # noqa: T201
            return 1
        return 0

    def _save(self, options: Any, requirement: str) -> None:
        name, _, version = requirement.partition("==")
        session = self.get_default_session(options)
        finder = self._build_package_finder(options=options, session=session)
        found = finder.find_all_candidates(name)
        links = [c.link for c in found if str(c.version) == version and not c.link.is_wheel]
        if not links:
            versions = ", ".join(dict.fromkeys(str(c.version) for c in found)) or "none"
            raise LookupError(f"no source distribution of {requirement} (versions: {versions})")
        link = links[0]
        with session.get(
            link.url_without_fragment, headers={"Accept-Encoding": "identity"}, stream=True
        ) as answer:
            answer.raise_for_status()
            with Path(Path(link.filename).name).open("wb") as file:
                shutil.copyfileobj(answer.raw, file)


if __name__ == "__main__":
    sys.exit(SaveSdist("download", "").main(sys.argv[1:]))
