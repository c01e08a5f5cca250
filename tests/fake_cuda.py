"""A GPU without a GPU: code for CUDA runs on tensors without values, and what it would make a GPU do is recorded.

Tensors on "cuda" are torch's fake tensors: they have a shape, a type and a device, but no memory. Tensors on the CPU are real,
so whatever is drawn or looked up there has its values. A mix of devices raises an error, as on a GPU. The record has:

- waits: where the host waits for the device, by reading a value or by a copy from or to memory that is not pinned;
- launches, bytes moved by them, and floating point operations of matrix products and convolutions;
- memory in use, and its peak.

Not covered: the run time, workspaces of cuDNN, the memory allocator's own reserve, and what a kernel computes.

It needs a CUDA build of torch, but no device and no driver. Use it in a process of its own, `in_a_child`: tables that tabzoo
keeps for each device are fake afterwards.
"""

import contextlib
import heapq
import os
import tempfile
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

import tabzoo

_PACKAGE = f"{Path(tabzoo.__file__).parent}{os.sep}"
CUDA = torch.device("cuda", 0)
BUILT = torch.backends.cuda.is_built()
_GATHERS = ("index_select", "index", "gather", "embedding")
_SCATTERS = ("scatter_", "scatter_add_", "index_put_", "_index_put_impl_")
_WRITES = ("copy_", "fill_", "zero_")  # in place, without reading what was there
# Kernels of several tensors at once that torch has no shapes for. They change their tensors in place.
_MULTI_TENSOR = ("_fused_sgd_", "_fused_adam_", "_fused_adamw_", "_amp_foreach_non_finite_check_and_unscale_")
UNORDERED = frozenset(
    "grid_sampler_2d_backward upsample_linear1d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward "
    "_adaptive_avg_pool2d_backward adaptive_max_pool2d_backward reflection_pad2d_backward replication_pad2d_backward "
    "index_add index_add_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ put_ histc bincount median cumsum "
    "nll_loss2d_forward embedding_dense_backward".split()
)
"""Kernels that add floating point numbers in an order that differs from run to run, after torch's own list in
`torch.use_deterministic_algorithms`."""


class Record(TorchDispatchMode):
    """What the code of a block would make a GPU do."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """What waits and the line of code that does -> how often."""
        self.launches: Counter[str] = Counter()
        """Operation -> kernels; views and allocations launch none."""
        self.bytes = self.flops = self.memory = self.peak = 0
        self._storages: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._pinned: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def reset(self) -> None:
        """Starts counting again; what is in memory stays there."""
        self.waits, self.launches = Counter(), Counter()
        self.bytes = self.flops = 0
        self.peak = self.memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a question about a tensor, such as its device
            return func(*args, **kwargs)
        name, tensors = func.overloadpacket.__name__, _tensors((args, kwargs))
        if name == "is_pinned":
            return tensors[0].untyped_storage() in self._pinned
        if name == "_pin_memory":
            return self._pin(tensors[0].clone())
        if not any(isinstance(t, FakeTensor) for t in tensors) and _device(kwargs).type != "cuda":
            pinned = kwargs.pop("pin_memory", False)
            with torch._C._DisableTorchDispatch():  # on the CPU, with real values
                made = func(*args, **kwargs)
            return self._pin(made) if pinned else made
        if name == "_local_scalar_dense":
            self._wait("a value is read")
            return 0.0 if tensors[0].is_floating_point() else 0
        if name in _MULTI_TENSOR:
            assert {t.device for t in tensors} == {CUDA}, f"{name} on {sorted({str(t.device) for t in tensors})}"
            self._count(name, tensors, [], flops=0)
            return None
        if func not in flop_registry and func.overloadpacket not in flop_registry:
            with self:  # operations that consist of others
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        self._note(func, name, args, kwargs, tensors, made)
        return made

    def _note(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor], made: Any) -> None:
        results = _tensors(made)
        self._note_wait(name, args, kwargs, tensors, results)
        if not any(t.device.type == "cuda" for t in (*tensors, *results)):
            return
        known = {id(t.untyped_storage()) for t in tensors}
        is_view = bool(results) and all(id(t.untyped_storage()) in known for t in results)
        if not name.startswith(("empty", "new_empty")) and (func._schema.is_mutable or not is_view):
            count = flop_registry.get(func.overloadpacket)
            inputs = _tensors((args, {key: value for key, value in kwargs.items() if key != "out"}))
            self._count(name, inputs, results, flops=count(*args, **kwargs, out_val=made) if count else 0)
        for result in results:
            self._allocate(result)

    def _note_wait(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor], results: list[Tensor]) -> None:
        if name == "_linalg_check_errors":
            self._wait("a decomposition is checked")
        devices = {t.device.type for t in (*tensors, *results)}
        if devices != {"cpu", "cuda"}:
            return
        if name in ("_to_copy", "copy_"):
            asynchronous = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            source = tensors[-1] if name == "copy_" else tensors[0]
            if not (asynchronous and source.device.type == "cpu" and source.untyped_storage() in self._pinned):
                self._wait(f"a copy from {source.device.type}")
        elif name in (*_GATHERS, *_SCATTERS, "where"):
            self._wait(f"{name} with a tensor on the CPU")
        # Elsewhere torch takes a number that is a tensor on the CPU as an argument of the kernel.

    def _wait(self, what: str) -> None:
        self.waits[f"{what}: {_line()}"] += 1

    def _pin(self, tensor: Tensor) -> Tensor:
        self._pinned.add(tensor.untyped_storage())
        return tensor

    def _count(self, name: str, tensors: list[Tensor], results: list[Tensor], *, flops: int) -> None:
        read, written = sum(map(_size, tensors)), sum(map(_size, results))
        if name in _WRITES:
            read -= _size(tensors[0])
        if name in _GATHERS:  # of the first tensor only what is taken
            read += written - _size(tensors[0])
        elif name in _SCATTERS:
            read, written = sum(map(_size, tensors[1:])), _size(tensors[-1])
        elif name in _MULTI_TENSOR:
            written = read
        self.launches[name] += 1
        self.bytes += read + written
        self.flops += flops

    def _allocate(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.device.type != "cuda" or storage in self._storages:
            return
        size = -(-storage.nbytes() // 512) * 512  # as torch's allocator rounds it
        self._storages.add(storage)
        self.memory += size
        self.peak = max(self.peak, self.memory)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.memory -= size


@contextlib.contextmanager
def fake_cuda() -> Iterator[Record]:
    """Makes tensors on "cuda" fake, and records what the block makes of them."""
    record = Record()
    with contextlib.ExitStack() as stack:
        # Without a device, mixed precision and the scaler of losses would switch themselves off.
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", lambda *_, **__: True))
        stack.enter_context(patch("torch.Tensor.backward", backward))
        generator = torch.Generator  # one of the CPU stands for one of the GPU: nothing is drawn there
        stack.enter_context(patch("torch.Generator", lambda device="cpu": generator()))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_Saved, _Saved.unpack))
        yield stack.enter_context(record)


class _Saved:
    """A tensor that was saved for the backward pass, until it is used: autograd frees it then."""

    used: ClassVar["list[_Saved]"] = []

    def __init__(self, tensor: Tensor) -> None:
        self.tensor: Tensor | None = tensor.detach()

    def unpack(self) -> Tensor:
        assert self.tensor is not None
        self.used.append(self)
        return self.tensor


@torch.no_grad()
def backward(loss: Tensor) -> None:
    """As `loss.backward()`. torch's own engine asks the device's driver for its streams, and there is no driver."""
    gradients: dict[Any, list[Tensor | None]] = {}
    ready: list[tuple[int, int, Any]] = []  # the node that was made last comes first, as in torch's engine

    def send(node: Any, index: int, gradient: Tensor) -> None:
        if node not in gradients:
            gradients[node] = [None] * max(len(node._input_metadata), index + 1)
            heapq.heappush(ready, (-node._sequence_nr(), id(node), node))
        before, shape = gradients[node][index], node._input_metadata[index]
        gradient = gradient.sum_to_size(shape.shape).to(shape.dtype)
        gradients[node][index] = gradient if before is None else before + gradient

    send(loss.grad_fn, 0, torch.ones_like(loss))
    while ready:
        _, _, node = heapq.heappop(ready)
        made = node(*gradients.pop(node))
        for (following, index), gradient in zip(
            node.next_functions, made if isinstance(made, tuple) else (made,), strict=bool(node.next_functions)
        ):
            if following is not None and gradient is not None:
                send(following, index, gradient)
        del made
        for saved in _Saved.used:
            saved.tensor = None
        _Saved.used.clear()


def in_a_child(check: Callable[[], None]) -> None:
    """Checks in a forked process, so that this one keeps no fake GPU and no tables without values.

    Raises:
        AssertionError: The check failed; the text is the child's traceback.
    """
    if torch.cuda.is_available():  # torch would open the GPU, which a forked process can't
        pytest.skip("there is a GPU, on which the tests marked gpu check the same; CUDA_VISIBLE_DEVICES= hides it")
    with tempfile.TemporaryFile("w+") as report:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                torch.set_num_threads(1)  # the parent's threads are not here
                check()
                code = 0
            except BaseException:
                report.write(traceback.format_exc())
                report.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        report.seek(0)
        assert code == 0, report.read()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _device(kwargs: dict[str, Any]) -> torch.device:
    return torch.device(kwargs.get("device") or "cpu")


def _size(tensor: Tensor) -> int:
    """Bytes that a kernel reads or writes; an expanded tensor is smaller than its shape."""
    if tensor.device.type != "cuda":
        return 0
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _line() -> str:
    """The line of tabzoo that is being executed, or the outermost one."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    # Not by the word "tabzoo": a clone of that name may also hold the environment, and in it torch.
    frame = [frame for frame in frames if frame.filename.startswith(_PACKAGE) or frame is frames[0]][-1]
    return f"{frame.filename.removeprefix(_PACKAGE)}:{frame.lineno} {frame.line}"
