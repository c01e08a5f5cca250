"""A folder of images, scanned once into a tree of names. Every layout is a function of that tree."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tabzoo.data.images import IMAGE_SUFFIXES
from tabzoo.data.samples import Bytes
from tabzoo.errors import InputError

__all__ = ["Folder", "scan"]

_NO_FILES = np.zeros(0, dtype=np.bytes_)

# Deep enough for VisA's CLASS/Data/Images/Normal and one more. A limit, because links could multiply folders.
_MAX_DEPTH = 5
_SUFFIXES = frozenset(suffix.encode() for suffix in IMAGE_SUFFIXES)
_SYSTEM_FOLDERS = frozenset({b"__macosx", b"@eadir", b"lost+found", b"$recycle.bin", b"system volume information"})


@dataclass
class Folder:
    """A folder: the names of its images, and the folders in it."""

    path: bytes  # relative to the root, b"" for the root itself
    images: Bytes = field(default_factory=lambda: _NO_FILES)  # sorted names
    folders: dict[bytes, "Folder"] = field(default_factory=dict)
    others: Counter[bytes] = field(default_factory=Counter)  # endings of the other files

    @property
    def name(self) -> str:
        """The folder's own name, "" for the root."""
        return os.fsdecode(os.path.basename(self.path))

    def join(self, name: bytes) -> bytes:
        """The path, relative to the root, of something in this folder."""
        return self.path + b"/" + name if self.path else name

    def image_paths(self) -> Bytes:
        """The paths of its images relative to the root."""
        return np.char.add(self.path + b"/", self.images) if self.path else self.images

    def child(self, *names: str) -> "Folder | None":
        """The folder with this name, in upper or lower case; with several names, one step down for each."""
        folder: Folder | None = self
        for name in names:
            assert folder is not None
            found = [key for key in folder.folders if os.fsdecode(key).lower() == name.lower()]
            if len(found) > 1:
                both = " and ".join(os.fsdecode(folder.join(key)) for key in found)
                raise InputError(f"{both}: two folders whose names differ only in case; expected one, named {name}")
            folder = folder.folders[found[0]] if found else None
            if folder is None:
                return None
        return folder

    def walk(self) -> Iterator["Folder"]:
        """This folder and all below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.walk()


def scan(root: bytes, path: bytes, ancestors: frozenset[tuple[int, int]], *, depth: int = _MAX_DEPTH) -> Folder:
    """The tree of image names. Links are followed, except those to a folder above them.

    Args:
        root: Where paths start.
        path: The folder, relative to `root`.
        ancestors: Device and inode of the folders above it.
        depth: Number of levels below `root`; what is deeper is left out.

    Raises:
        InputError: A folder can't be listed.
    """
    here = os.path.join(root, path)
    folder, images, below = Folder(path), [], []
    try:
        status = os.stat(here)
        with os.scandir(here) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith(b"."):
                    continue
                suffix = name[name.rfind(b".") :].lower()
                if suffix in _SUFFIXES and _is_image_file(entry):
                    images.append(name)
                elif _is_folder(entry):
                    below.append(name)
                else:
                    folder.others[os.path.splitext(name)[1].lower()] += 1
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(here)}: can't list this folder: {error.strerror}; make it readable, or move it somewhere else"
        ) from error
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return Folder(path)
    folder.images = np.array(sorted(images), dtype=np.bytes_)
    if path.count(b"/") + bool(path) < depth:
        for name in sorted(below):
            if name.lower() not in _SYSTEM_FOLDERS:
                folder.folders[name] = scan(root, folder.join(name), ancestors | {identity}, depth=depth)
    return folder


def _is_image_file(entry: os.DirEntry[bytes]) -> bool:
    """A regular file, or a broken link, which is kept so that reading it names it in an error."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:  # A link to itself.
        return True


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
