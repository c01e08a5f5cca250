"""The way of weights to the user: fetched, checked, kept on this machine, loaded."""

from tabzoo.hub.files import Digest, read_tensors
from tabzoo.hub.folders import Folder, read_folder, verify
from tabzoo.hub.reach import REACH_SECONDS, local_copy

__all__ = ["REACH_SECONDS", "Digest", "Folder", "local_copy", "read_folder", "read_tensors", "verify"]
