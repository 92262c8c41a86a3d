"""A person's review of a finished run: pages on which crops are unticked, and the choices made.

The choices are kept in `review.json` of the run's folder; `hbr.curation.runs.run.curate` drops what
they leave out, whenever it runs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from PIL import Image

from hbr.curation.record import CurationError
from hbr.curation.runs.choices import NAME, Review, identity, kept_review, read_review
from hbr.curation.runs.run_folder import RunFolder
from hbr.files import write_text
from hbr.pages import data_uri, environment, script_data
from hbr.version import __version__


def write_page(run: RunFolder, path: Path, *, count: int, edge: int = 320) -> tuple[int, int]:
    """Write the page of the next crops that nobody has seen, as one self-contained file.

    `count` is the number of crops on the page, `edge` the longer edge of its pictures.

    Returns:
        how many crops are on the page, and how many are left for the next ones.

    Raises:
        CurationError: the run has not finished, or a crop is not in its folder any more.
    """
    manifest, seen = run.finished(), kept_review(run.path).seen
    waiting = (record for record in manifest.kept() if record.id not in seen)
    records = list(islice(waiting, count))
    left = sum(1 for _ in waiting)
    if not records:
        return 0, 0
    crops, read = [], run.crop_reader()
    for record in records:
        with Image.open(io.BytesIO(read(record))) as image:
            uri = data_uri(image.convert("RGB"), edge=edge)
        crops.append({"id": record.id, "uri": uri, "name": f"{record.source}/{record.key}"})
    ids = [crop["id"] for crop in crops]
    page = environment(__package__).get_template("review.html")
    text = page.render(
        name=run.name,
        version=__version__,
        crops=crops,
        left=left,
        data=script_data({"run": identity(manifest), "ids": ids}),
    )
    write_text(path, text)
    return len(records), left


def apply_choices(run: RunFolder, choices: Iterable[Path]) -> Review:
    """Add the choices of saved files to those of the run, where the later ones win, and keep them.

    Raises:
        CurationError: a file holds no choices, or those of another run; nothing is kept then.
    """
    own = identity(run.finished())
    review = kept_review(run.path)
    seen, left_out = set(review.seen), set(review.left_out)
    for path in choices:
        new = read_review(path)
        if new.run != own:
            raise CurationError(
                f"{path} holds the choices of another run than {run.path}; "
                "hbr curate review writes the page of this one"
            )
        seen |= new.seen
        left_out = (left_out - new.seen) | new.left_out
    values = {"run": own, "seen": sorted(seen), "left_out": sorted(left_out)}
    write_text(run.path / NAME, json.dumps(values, indent=1) + "\n")
    return Review(own, frozenset(seen), frozenset(left_out))
