"""Tests that are not marked gpu see no GPU, on any machine."""

import subprocess
import sys

import torch

from tabzoo.training.pretrain import _device


def test_this_process_and_those_it_starts_see_none() -> None:
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0
    assert _device("auto") == "cpu"
    found = "import torch; print(torch.cuda.is_available())"
    assert subprocess.run([sys.executable, "-c", found], capture_output=True, text=True).stdout == "False\n"
