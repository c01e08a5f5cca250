"""Another place for an anomaly that doesn't show.

Flat on flat, black on black, a mixed clone onto a rough surface: a patch can leave the image as it was, and such an
image must not be called abnormal. So every method draws a few places per sample, and the next one is used where the
last one left no trace. What a sample gets still depends on nothing but its images and its draws.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from tabzoo.synthesis.interface import Params, Synthetic

__all__ = ["first_that_shows"]

P = TypeVar("P", bound=Params)


def first_that_shows(
    make: Callable[[Tensor, Tensor, P, int], Synthetic], normal: Tensor, source: Tensor, params: P, *, attempts: int
) -> Synthetic:
    """Returns for each sample the first attempt whose mask isn't empty, or the last one.

    Args:
        make: Makes the anomalies with the given attempt's places: (normal, source, params, attempt).
        normal: uint8 [B, 3, H, W].
        source: uint8 [B, 3, H, W].
        params: What was drawn.
        attempts: Attempts that were drawn.
    """
    made = make(normal, source, params, 0)
    for attempt in range(1, attempts):
        hidden = made.mask.flatten(1).view(torch.uint8).amax(1) == 0  # many times faster than any()
        if hidden.device.type == "cpu":
            few = torch.nonzero(hidden)[:, 0]
            if len(few) == 0:
                break
            made.abnormal[few], made.mask[few] = make(normal[few], source[few], params[few], attempt)
        else:  # finding out how many they are would wait for the device
            again, hidden = make(normal, source, params, attempt), hidden[:, None, None, None]
            made = Synthetic(torch.where(hidden, again.abnormal, made.abnormal), made.mask | (again.mask & hidden))
    return made
