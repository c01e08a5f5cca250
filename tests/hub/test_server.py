"""The Hub of the tests serves huggingface_hub as the real one does."""

from pathlib import Path

import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from server import HubServer


def test_files_small_and_large_arrive(hub: HubServer, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4}
    commit = hub.commit("org/name", files)
    for name, content in files.items():
        metadata = get_hf_file_metadata(hf_hub_url("org/name", name, revision="main", endpoint=hub.endpoint))
        assert (metadata.commit_hash, metadata.size) == (commit, len(content))
        path = hf_hub_download("org/name", name, revision=commit, cache_dir=tmp_path, endpoint=hub.endpoint)
        assert Path(path).read_bytes() == content
    assert hub.count("GET /blobs/") == 1


def test_what_is_missing_is_told_apart(hub: HubServer, tmp_path: Path) -> None:
    hub.commit("org/name", {"config.json": b"{}"})
    for repository, revision, file, error in (
        ("org/other", "main", "config.json", RepositoryNotFoundError),
        ("org/name", "0" * 40, "config.json", RevisionNotFoundError),
        ("org/name", "main", "model.safetensors", EntryNotFoundError),
    ):
        with pytest.raises(error):
            hf_hub_download(repository, file, revision=revision, cache_dir=tmp_path, endpoint=hub.endpoint)
