"""Tests that a change in the working tree can break, by room: `python -m tests.changed` prints their files, `make quick` runs them.

A changed module is tested by its own examples, the tests of its room and the laws that name the room; what tests of a room share by
the tests of the room, and a benchmark by those that run it. What has not been committed counts, or the last commit where everything
has.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def changed_files() -> list[Path]:
    """Return what differs from the last commit, or what the last commit changed, from the root of the project."""

    def names(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    found = names("diff", "--name-only", "HEAD") + names("ls-files", "--others", "--exclude-standard")
    return [Path(name) for name in found or names("diff", "--name-only", "HEAD~1")]


def public_names(room: str) -> list[str]:
    """Return the names of `rtsx` that a room defines."""
    imports = re.findall(rf"from rtsx\.{room}[\w.]* import ([\w, ]+)", (ROOT / "rtsx" / "__init__.py").read_text())
    return [name for names in imports for name in names.split(", ")]


def tests_of(changed: list[Path]) -> list[str]:
    """Return the files and folders with the tests of these files, sorted."""
    laws = {law: law.read_text() for law in (ROOT / "tests" / "laws").glob("test_*.py")}
    found = set()
    for path in changed:
        if path.suffix != ".py" or not (ROOT / path).is_file():
            continue
        if path.name.startswith("test_"):
            found.add(ROOT / path)
        elif path.parts[0] == "tests" and len(path.parts) > 2:
            found.add(ROOT / "tests" / path.parts[1])
        elif path.parts[0] == "benchmarks":
            tests = (ROOT / "tests").glob("test_benchmark*.py")
            found |= {test for test in tests if re.search(rf"\b{path.stem}\b", test.read_text())}
        elif path.parts[0] == "rtsx":
            found.add(ROOT / path)
            room = ROOT / "tests" / path.parts[1] if len(path.parts) > 2 else ROOT / "tests" / f"test_{path.name}"
            found |= {room} if room.exists() else set()
            names = [rf"rtsx\.{path.parts[1]}", *public_names(path.parts[1])]
            named = re.compile(rf"\b({'|'.join(names)})\b")
            found |= {law for law, text in laws.items() if named.search(text)}
    return sorted(str(test.relative_to(ROOT)) for test in found)


if __name__ == "__main__":
    print(*tests_of(changed_files()), sep="\n")
