"""The files of the repository that the tests belong to: a clone, or an unpacked sdist."""

import subprocess
from pathlib import Path

__all__ = ["ROOT", "tracked_files"]

ROOT = Path(__file__).resolve().parents[1]
_NOT_IN_SDIST = (".github/", ".gitignore", ".pre-commit-config.yaml")


def tracked_files(*, in_sdist: bool = False) -> list[str]:
    """Paths of all files from the root, those that git does not know yet included; in an sdist all that is there.

    Args:
        in_sdist: Leave out what only a clone needs.
    """
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if (ROOT / ".git").exists():
        shown = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        files = [name for name in shown.strip("\0").split("\0") if (ROOT / name).is_file()]
    else:
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        files = [path.as_posix() for path in found if not _is_made(path.parts[0])]
    return sorted(name for name in files if not (in_sdist and name.startswith(_NOT_IN_SDIST)))


def _is_made(name: str) -> bool:
    """Whether a tool made this file or folder: their caches begin with a dot."""
    return name.endswith(".egg-info") or (name.startswith(".") and name != ".ci")
