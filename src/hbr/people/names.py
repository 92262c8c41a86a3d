"""The people of each image of an annotation file, found by the names of photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbr.image.paths import photo_suffix
from hbr.people.types import Person
from hbr.people.values import name_parts


@dataclass(frozen=True)
class NameClashes:
    """Photos whose people are ambiguous.

    Attributes:
        lines: one for each clash: names that fall on one photo, or photos that one name falls on.
        lost: the photos without people for it, and why. Of several that one name falls on, the one
            that it names exactly has its people.
    """

    lines: list[str]
    lost: dict[str, str]


class AnnotatedPeople(Mapping[str, tuple[Person, ...]]):
    """The people of each image of an annotation file, by the file name that is written there.

    Images without people are included.

    Attributes:
        path: the file.
        skipped: reason → places of the entries that were not used.
    """

    def __init__(
        self,
        path: Path,
        people: Mapping[str, tuple[Person, ...]],
        skipped: Mapping[str, Sequence[str]],
    ) -> None:
        self.path = path
        self.skipped = skipped
        self._people = people
        self._named: dict[str, list[str]] = defaultdict(list)
        for name in people:
            self._named[_parts(name)[0][-1]].append(name)

    def __getitem__(self, name: str) -> tuple[Person, ...]:
        return self._people[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._people)

    def __len__(self) -> int:
        return len(self._people)

    def find(self, place: str, *, any_suffix: bool = False) -> tuple[Person, ...] | None:
        """The people of the photo at `place`, a path relative to the folder of photos.

        The annotations may name folders that the photo is not in, or the other way round: the
        longest agreeing end of the two paths counts, if one of them is the end of the other. With
        `any_suffix`, "a.png" also stands for "a.jpg".

        Returns:
            None if no image of the file, or more than one, agrees.
        """
        agreeing = self._agreeing(place, any_suffix)
        return self._people[agreeing[0]] if len(agreeing) == 1 else None

    def match(self, places: Iterable[str]) -> tuple[dict[str, tuple[Person, ...]], list[str]]:
        """The people of all photos of a folder, and what is ambiguous.

        Returns:
            The people of each photo that the annotations name, and a line for each clash: names
            that fall on one photo, or photos that one name falls on. Their people are left out.
        """
        places = list(places)
        clashes = self.clashes(places)
        found = {}
        for place in places:
            people = None if place in clashes.lost else self.find(place)
            if people is not None:
                found[place] = people
        return found, clashes.lines

    def clashes(self, places: Iterable[str], *, any_suffix: bool = False) -> NameClashes:
        """What is ambiguous among all photos of a folder."""
        lines, lost = [], {}
        taken: dict[str, list[str]] = defaultdict(list)
        for place in places:
            if line := self.clash(place, any_suffix=any_suffix):
                lines.append(line)
                lost[place] = line
            elif agreeing := self._agreeing(place, any_suffix):
                taken[agreeing[0]].append(place)
        for name, photos in taken.items():
            if len(photos) < 2:
                continue
            shown = " and ".join(photos[:2]) + (" and more" if photos[2:] else "")
            lines.append(f"{self.path}: {name} may be {shown}; name the folder, too")
            parts, suffix = _parts(name)
            own = (parts, None) if any_suffix else (parts, suffix)
            for place in photos:
                parts, suffix = _parts(place)
                if (parts, None if any_suffix else suffix) != own:
                    lost[place] = lines[-1]
        return NameClashes(lines, lost)

    def clash(self, place: str, *, any_suffix: bool = False) -> str | None:
        """One line if several names fall on the photo at `place`; see `find`."""
        names = self._agreeing(place, any_suffix)
        if len(names) < 2:
            return None
        return f"{self.path}: {names[0]} and {names[1]} both may be {place}; name the folder, too"

    def _agreeing(self, place: str, any_suffix: bool) -> list[str]:
        wanted, suffix = _parts(place)
        agreeing: dict[int, list[str]] = defaultdict(list)
        for name in self._named.get(wanted[-1], ()):
            parts, other = _parts(name)
            n = min(len(parts), len(wanted))
            fits = any_suffix or not suffix or not other or suffix == other
            if fits and parts[-n:] == wanted[-n:]:
                agreeing[n].append(name)
        best = agreeing[max(agreeing)] if agreeing else []
        for exact in ((wanted, suffix), (wanted, None)):
            chosen = [n for n in best if _parts(n) == exact or (_parts(n)[0], None) == exact]
            best = chosen or best
        return best

    @property
    def warning(self) -> str | None:
        """One line that counts what was skipped; None if everything was used."""
        if not self.skipped:
            return None
        total = sum(map(len, self.skipped.values()))
        reasons = [
            f"{places[0]} {reason}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
            for reason, places in self.skipped.items()
        ]
        entries = "1 entry" if total == 1 else f"{total} entries"
        return f"{self.path}: {entries} skipped: {'; '.join(reasons)}"


def _parts(name: str) -> tuple[tuple[str, ...], str]:
    """The folders and the file of a name, and the suffix of a picture that it has, or none."""
    parts = name_parts(name) or ("",)
    suffix = photo_suffix(parts[-1])
    return (*parts[:-1], parts[-1].removesuffix(suffix)), suffix
