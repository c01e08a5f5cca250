"""The files that a cache entry is made of, as they are now, and their fingerprint.

It covers the list of files with their identities, how they are decoded, and Pillow's version.

Size and modification time alone do not tell files apart: two that change places by `mv` may have the same. So the inode
and the time of the last change to it count too. A copy, another mount or a `chmod` changes these and not the pixels; then
files are decoded once more, which costs time and is never wrong.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISDIR
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from tabzoo.data.decoding import Kind, Target
from tabzoo.data.images import Resampling, files_of_mask
from tabzoo.data.samples import Bytes

__all__ = ["Files"]

# To be raised when an entry's files change, or what `images.py` makes of an image.
_FORMAT = 4

_LARGEST = 2**63 - 1


@dataclass(frozen=True, eq=False)
class Files:
    """The files of one entry."""

    target: Target
    paths: Bytes
    stats: NDArray[np.int64]  # [N, 4]: size in bytes, modification and change time in ns, inode; -1 for a missing file.

    @classmethod
    def listed(
        cls,
        root: Path,
        paths: Bytes,
        kind: Kind,
        size: int,
        resampling: Resampling,
        white_level: float | None = None,
    ) -> "Files":
        """The files as they are now."""
        return cls(
            Target(os.fsencode(root), kind, size, resampling, white_level), paths, _stats(os.fsencode(root), paths)
        )

    @property
    def num_bytes(self) -> int:
        """Of all rows."""
        return len(self.paths) * int(np.prod(self.target.row_shape))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the pixels of a given file."""
        white_level = self.target.white_level if self.target.kind == "image" else None
        return {
            "format": _FORMAT,
            **({} if white_level is None else {"white_level": float(white_level)}),
            "kind": self.target.kind,
            "size": self.target.size,
            "resize": self.target.resampling if self.target.kind == "image" else "nearest",
            "pillow": PIL.__version__,
            # The real path: one folder under two names has one entry, two folders with equal file lists have two.
            "root": os.path.realpath(os.fsdecode(self.target.root)),
        }

    @cached_property
    def folder_name(self) -> str:
        """The entry's, with the fingerprint in it."""
        digest = hashlib.sha256(json.dumps([self.settings, len(self.paths)], sort_keys=True).encode())
        # Joined, for the width of the array depends on the longest path.
        digest.update(b"\0".join(self.paths.tolist()) + b"\0")
        digest.update(np.ascontiguousarray(self.stats).tobytes())
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", os.path.basename(self.settings["root"]))[:40].lstrip(".")
        what = "" if self.target.kind == "image" else "-masks"
        return f"{name or 'data'}{what}-{self.target.size}-{digest.hexdigest()[:24]}"


def _stats(root: bytes, paths: Bytes) -> NDArray[np.int64]:
    def stat(path: bytes) -> tuple[int, int, int, int]:
        try:
            status = os.stat(os.path.join(root, path))
            if S_ISDIR(status.st_mode):  # several masks of one image
                return of_several([os.stat(file) for file in files_of_mask(os.fsdecode(os.path.join(root, path)))])
        except OSError:
            return -1, -1, -1, -1
        # Some file systems use all 64 bits of an inode's number.
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LARGEST

    def of_several(all_: list[os.stat_result]) -> tuple[int, int, int, int]:
        each = repr([(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in all_])
        digest = int.from_bytes(hashlib.sha256(each.encode()).digest()[:8], "big") & _LARGEST
        return sum(one.st_size for one in all_), digest, digest, digest

    return np.fromiter(map(stat, paths.tolist()), np.dtype((np.int64, 4)), len(paths))
