"""What was found in inventories, and what was done about it, row by row."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from rtsx.errors import LabelError, OutputNotWritableError
from rtsx.storage import local_path, staged

Action = Literal["repaired", "dropped", "kept"]

_SHOWN = 5
"""Findings of one kind that `str(report)` names."""


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One thing that is wrong with one row."""

    row: int
    """Number of the row in its source, from 0."""
    problem: str
    """What is wrong, in a few words that are the same for all rows that have it."""
    action: Action
    """``repaired``: the label is in the table, changed. ``dropped``: it is not. ``kept``: it is, as it was."""
    detail: str
    """What is wrong with this row in particular, and what was done."""
    source: str = ""
    """File that the row is from."""
    source_id: str | None = None
    """What the source calls the row."""


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Every row that is not in the table as it came, and why; `str()` of it is for people."""

    rows: Mapping[str, int]
    """Rows of each source, by its name."""
    written: int
    """Rows of the table: all rows less those that were dropped."""
    findings: tuple[Issue, ...] = field(default=(), repr=False)
    """In the order of sources and rows."""
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """By source: which of its columns became which of ours (ours: theirs)."""
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """By source: columns that have no place in the schema."""
    notes: tuple[str, ...] = ()
    """Doubts about a source as a whole; they change nothing."""

    @property
    def is_clean(self) -> bool:
        """Whether every row is in the table as it came."""
        return not self.findings

    @property
    def counts(self) -> dict[tuple[str, Action], int]:
        """How many findings there are of each problem and action, the most frequent first."""
        return dict(Counter((one.problem, one.action) for one in self.findings).most_common())

    @property
    def dropped(self) -> tuple[Issue, ...]:
        """The rows that are not in the table."""
        return tuple(one for one in self.findings if one.action == "dropped")

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each finding."""
        names = ["source", "row", "source_id", "problem", "action", "detail"]
        return pd.DataFrame([asdict(one) for one in self.findings], columns=names)

    def to_json(self) -> str:
        """Return the whole report as JSON."""
        document = asdict(self) | {"read": sum(self.rows.values()), "dropped": len(self.dropped)}
        return json.dumps(document, indent=2, ensure_ascii=False)

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the findings as ``.csv``, or the whole report as ``.json``.

        Raises
        ------
        LabelError
            Another ending.
        OutputExistsError
            Something is there, and `overwrite` is False.
        OutputNotWritableError
            The folder is missing or cannot be written to.
        """
        target = local_path(path)
        if target.suffix.lower() not in (".csv", ".json"):
            raise LabelError(f"A report is a .csv or a .json file; got {target.name!r}. Change the ending.")
        if not target.parent.is_dir():
            raise OutputNotWritableError(f"{target} cannot be written: create its folder, or choose another.")
        text = self.to_json() if target.suffix.lower() == ".json" else self.to_frame().to_csv(index=False)
        with staged(target, overwrite=overwrite) as draft:
            draft.write_text(text, encoding="utf-8")
        return target

    def __str__(self) -> str:
        """Counts, then the first rows of each problem."""
        read = sum(self.rows.values())
        lines = [f"{read} rows read from {len(self.rows)} source{'s' * (len(self.rows) != 1)}, {self.written} labels"]
        if self.is_clean:
            lines.append("nothing to repair, nothing dropped")
        several = len(self.rows) > 1
        for (problem, action), count in self.counts.items():
            lines.append(f"{count} {action}: {problem}")
            same = [one for one in self.findings if (one.problem, one.action) == (problem, action)]
            lines += [f"    {f'{one.source} ' * several}row {one.row}: {one.detail}" for one in same[:_SHOWN]]
            lines += [f"    and {count - _SHOWN} more"] * (count > _SHOWN)
        lines += [f"doubt: {note}" for note in self.notes]
        for source, names in self.unused.items():
            if names:
                lines.append(f"not in the schema{f' ({source})' * several}: {', '.join(names)}")
        return "\n".join(lines)
