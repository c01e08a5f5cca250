"""How a device computes: mixed precision, equal numbers from equal seeds, copies that do not wait, warnings of slow settings.

bfloat16 halves the time of a training step where the device has instructions for it. Where torch emulates it, a CPU takes
6 to 15 times as long as in float32.
"""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from tabzoo.errors import InputError
from tabzoo.system import process_use

__all__ = ["Amp", "AmpChoice", "CoreWatch", "choose_amp", "choose_device", "deterministic", "seeded", "to_device"]

Amp = Literal["auto", "off", "bf16", "fp16"]

# Measured on 2 cores: 7 to 43 with one thread on an idle machine, 170 to 270 with two threads next to busy processes.
_INTERRUPTIONS = 100  # for each second of CPU time
_WATCHED = 5.0  # seconds of CPU time

_log = logging.getLogger(__name__)


class AmpChoice(NamedTuple):
    """Mixed precision on a device.

    Attributes:
        amp: "off", "bf16" or "fp16"; never "auto".
        reason: Why, in one line for people; empty if the value was given.
    """

    amp: Amp
    reason: str = ""


def choose_amp(amp: Amp, device: torch.device) -> AmpChoice:
    """What `amp` means on a device: `auto` is bf16 where the device computes it natively, else off.

    Warns where bf16 was asked for by name and the device only emulates it.
    """
    native, why = _bf16_support(device)
    if amp == "auto":
        chosen: Amp = "bf16" if native else "off"
        return AmpChoice(chosen, f"amp auto: {chosen}, because {why}.")
    if amp == "bf16" and not native:
        _log.warning(
            "--amp bf16: %s, so it will be slower than float32, several times on a CPU. Type --amp auto or --amp off.",
            why,
        )
    return AmpChoice(amp)


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" takes the GPU if there is one.

    Raises:
        InputError: "cuda" without a CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA device here. Type --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _bf16_support(device: torch.device) -> tuple[bool, str]:
    """Whether the device has bfloat16 instructions, and a clause that says so."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        # Ampere and later. torch.cuda.is_bf16_supported() is true for older GPUs too, where torch emulates bfloat16.
        native, name = capability >= (8, 0), f"this GPU (CUDA capability {capability[0]}.{capability[1]})"
    else:
        native, name = _cpu_has_bf16(), "this CPU"
    return native, f"{name} has {'' if native else 'no '}bfloat16 instructions"


def _cpu_has_bf16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is Arm's
    # Older torch. On x86 the question for Arm is answered yes by every CPU with AVX-512, with or without bfloat16.
    if platform.machine().lower() in ("arm64", "aarch64"):
        asked = [getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)]
    else:
        asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(supported() for supported in asked if supported)


class CoreWatch:
    """Notices that other processes use the same CPU cores, and warns once.

    torch takes a thread for every core, and a step ends with its slowest thread: where another process takes a core away,
    all threads wait. The operating system counts how often a thread was interrupted. On idle cores that is a few times for
    each second of computing, on shared ones hundreds of times.

    Args:
        device: Where the process computes. Nothing is watched on a GPU, nor where OMP_NUM_THREADS is set.
    """

    def __init__(self, device: torch.device) -> None:
        # None where nothing is watched, or what there is to say was said.
        self._before = process_use() if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ else None

    def check(self) -> None:
        """Looks at the time since the watch began, once that is long enough to tell."""
        used = process_use()
        if self._before is None or used is None or (seconds := used.seconds - self._before.seconds) < _WATCHED:
            return
        interruptions, self._before = used.interruptions - self._before.interruptions, None
        threads = torch.get_num_threads()
        if interruptions / seconds > _INTERRUPTIONS and threads > 1:
            _log.warning(
                "Other processes use the same CPU cores, so the %d threads of this one wait for each other. To run several "
                "at once, start each with OMP_NUM_THREADS=1 (cores divided by processes).",
                threads,
            )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns the tensor on a device. The host does not wait for a GPU, because the copy starts from pinned memory."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def deterministic() -> None:
    """Makes equal seeds give equal numbers on a GPU, for the rest of the process: cuDNN adds in the same order every time.

    The code avoids other operations whose order of addition is random, such as the gradients of `F.grid_sample`, of bilinear
    interpolation and of `Tensor.gather`; tests check that. `torch.use_deterministic_algorithms` would also slow down
    operations that already give equal numbers here, such as assignments to an index.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, torch's generator of the CPU starts from this seed; afterwards it is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
