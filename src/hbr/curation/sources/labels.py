"""Which labels name a person, in the words of each vocabulary; the table is `labels.yaml`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hbr.config import ConfigError, read_yaml
from hbr.curation.sources.base import Box, BoxKind
from hbr.people.labels import normalised

Role = Literal["person", "head", "crowd", "ignore"]
_MOST_LABELS, _MORE_LABELS = 1000, "…"
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Vocabulary:
    """What the labels of one data set mean.

    Attributes:
        roles: normalised label → what it names.
        met: how often `role` was asked for a label that names something, and for each other one.
    """

    roles: Mapping[str, Role]
    met: Counter[str | None] = field(default_factory=Counter, compare=False, repr=False)

    def role(self, label: str) -> Role | None:
        """What this label names; None for all that has nothing to do with people."""
        role = self.roles.get(normalised(label))
        other = label if label in self.met or len(self.met) < _MOST_LABELS else _MORE_LABELS
        self.met[other if role is None else None] += 1
        return role

    @property
    def problem(self) -> str | None:
        """One line if there were labels, and none of them named anything."""
        if not self.met or None in self.met:
            return None
        shown = ", ".join(repr(label) for label, _ in self.met.most_common(8))
        more = f" and {len(self.met) - 8} more" if len(self.met) > 8 else ""
        return (
            f"none of its labels names a person, they are {shown}{more}; `people` or `labels` of "
            "the source names further ones"
        )

    def box(
        self,
        label: str,
        edges: Sequence[float],
        *,
        kind: BoxKind = "full",
        score: float | None = None,
        crowd: bool = False,
        ignore: bool = False,
        normalised: bool = False,
    ) -> Box | None:
        """The box of this label, x0, y0, x1, y1; None if it has nothing to do with people.

        What the label states (a head, a crowd, to be ignored) is added to the arguments.
        """
        role = self.role(label)
        if role is None:
            return None
        x0, y0, x1, y1 = edges
        kind = "head" if role == "head" else kind
        crowd, ignore = crowd or role == "crowd", ignore or role == "ignore"
        return Box(
            *(x0, y0, x1, y1),
            label=label,
            kind=kind,
            score=score,
            crowd=crowd,
            ignore=ignore,
            normalised=normalised,
        )


def load_vocabulary(name: str, extra: Path | None = None, people: Iterable[str] = ()) -> Vocabulary:
    """The vocabulary of a kind of source.

    Args:
        name: an entry of `labels.yaml` or of `extra`.
        extra: a file of the same form; what it lists is added.
        people: further labels that name a person.

    Raises:
        ConfigError: `extra` cannot be used, or the vocabulary is unknown.
    """
    files = [Path(__file__).with_name("labels.yaml"), *([] if extra is None else [extra])]
    tables = [_read(file) for file in files]
    known = {key for table in tables for key in table}
    if name not in known:
        raise ConfigError(f"vocabulary is {name!r}; it must be one of {', '.join(sorted(known))}")
    roles: dict[str, Role] = {}
    for table in tables:
        for role, labels in table.get(name, {}).items():
            roles.update({normalised(label): role for label in labels})
    roles.update({normalised(label): "person" for label in people})
    return Vocabulary(roles)


def _read(file: Path) -> dict[str, dict[Role, list[str]]]:
    table: dict[str, dict[Role, list[str]]] = read_yaml(file)
    if not isinstance(table, dict):
        raise ConfigError(f"{file}: it must be a mapping of vocabularies")
    for name, entry in table.items():
        if not isinstance(entry, dict) or not set(entry) <= set(ROLES):
            raise ConfigError(f"{file}: {name} must be a mapping with {', '.join(ROLES)}")
        for role, labels in entry.items():
            if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
                raise ConfigError(f"{file}: {name}.{role} must be a list of labels")
    return table
