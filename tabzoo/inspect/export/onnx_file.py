"""A graph written as an ONNX file, and read by onnxruntime."""

import importlib
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tabzoo.errors import InputError
from tabzoo.extras import how_to_install

__all__ = ["PHOTOS", "check_bytes", "import_runtime", "open_session", "write_onnx"]

PHOTOS = "photos"
"""Name of the input."""
_OPSET = 17
"""Of 2022. Read here by onnxruntime 1.32 and OpenVINO 2026.4; other versions and TensorRT were not tried."""
_MOST_BYTES = 2_000_000_000
"""A file of protobuf holds 2 GiB; the rest is for the graph."""


def import_runtime() -> tuple[Any, Any]:
    """The packages onnx and onnxruntime.

    Raises:
        InputError: One of them is not installed.
    """
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError(f"{error}: export needs onnx and onnxruntime: {how_to_install('export')}") from error


def check_bytes(tensors: Sequence[Tensor], advice: str) -> None:
    """Checks, before anything is computed, that a graph with these numbers fits a file.

    Args:
        tensors: What it will hold, as float32.
        advice: What to type if it does not fit.

    Raises:
        InputError: It does not.
    """
    needed = 4 * sum(tensor.numel() for tensor in tensors)
    if needed > _MOST_BYTES:
        raise InputError(f"the graph would have {needed / 1e9:.1f} GB, and an ONNX file holds at most 2 GB. {advice}")


def write_onnx(
    graph: nn.Module, path: Path, *, size: int, outputs: Sequence[str], metadata: Mapping[str, str], about: str
) -> None:
    """Writes a graph that takes photos uint8 [N, size, size, 3], with any N.

    torch's exporter by TorchScript is used: it is in all versions of torch that tabzoo runs with, writes one file, and needs
    no further package. The newer one by torch.export needs onnxscript. Its warning that it is the older one is silenced, and
    so are those about numbers that tracing fixes: all sizes but N are fixed here, and the proof runs with several N.

    Args:
        graph: In evaluation mode, on the CPU.
        path: The file.
        size: Side of the photos.
        outputs: Names of what it returns.
        metadata: Strings that the file holds for whoever reads it.
        about: What the file is, in a sentence.
    """
    onnx, _ = import_runtime()
    example = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    # Only torch from 2.5 on has a second exporter to choose.
    chosen: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            graph.eval(),
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[PHOTOS],
            output_names=list(outputs),
            opset_version=_OPSET,
            dynamic_axes={name: {0: "N"} for name in (PHOTOS, *outputs)},
            do_constant_folding=False,  # Runtimes do it when they load the file; here it would hold transposed copies.
            **chosen,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.doc_string = about
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch has."""
    _, runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
