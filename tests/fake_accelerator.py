"""A GPU without a GPU: a device whose tensors have a shape, a type and a place, and no values.

PyTorch's device for backends written in Python stands in for CUDA, and ``FakeTensorMode`` refuses what a GPU could not
do without the host: a number read back, tensors of two devices in one operation. Autocast is given CUDA's lists (the
operations that this project uses). The interpreter does not end cleanly after ``install``; leave it by ``os._exit``.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import rename_privateuse1_backend

rename_privateuse1_backend("fakegpu")
DEVICE = torch.device("fakegpu", 0)
Model = TypeVar("Model", bound=nn.Module)

#: CUDA's autocast lists (aten/src/ATen/autocast_mode.h): computed in autocast's format, and computed in fp32.
_LOW = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
_HIGH = (
    "layer_norm", "cross_entropy_loss", "nll_loss", "softmax.int", "log_softmax.int", "mse_loss", "norm.Scalar",
    "binary_cross_entropy_with_logits", "pow.Tensor_Scalar", "sum", "sum.dim_IntList", "prod", "cumsum", "exp", "log",
)  # fmt: skip


class _Module(backend_registration._DummyBackendModule):
    """``torch.fakegpu``: what ``torch.manual_seed`` and ``torch.autocast`` ask a device for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


_casts: dict[int, tuple[Tensor, Tensor]] = {}  # autocast's cache: id of a weight -> the weight, its cast


def install() -> None:
    """Register the device in this process."""
    backend_registration._setup_privateuseone_for_python_backend("fakegpu", backend_module=_Module())
    key = "AutocastPrivateUse1"
    fallthrough = torch.library.Library("_", "IMPL", key)
    fallthrough.fallback(torch.library.fallthrough_kernel)
    kernels = torch.library.Library("aten", "IMPL", key)
    for names, cast in ((_LOW, _to_low), (_HIGH, _to_high)):
        for name in names:
            base, _, overload = name.partition(".")
            packet = getattr(torch.ops.aten, base)
            kernels.impl(name, _kernel(getattr(packet, overload or "default"), cast))
    shapes = torch.library.Library("aten", "IMPL", "Meta")
    shapes.impl("_fused_adamw_.tensor_lr", lambda *_, **__: None)  # in place; PyTorch has it for a rate of the host
    _kept.extend((fallthrough, kernels, shapes))  # what is not referenced is unregistered
    clear = torch.clear_autocast_cache

    def cleared() -> None:
        _casts.clear()
        clear()

    torch.clear_autocast_cache = cleared  # called where an outermost autocast ends


_kept: list[Any] = []


def _kernel(operation: Callable[..., Any], cast: Callable[[Any], Any]) -> Callable[..., Any]:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(key):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return kernel


def _to_low(value: Any) -> Any:
    low = torch.get_autocast_dtype(DEVICE.type)
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == low:
        return value
    if not (value.is_leaf and value.requires_grad and value.dtype == torch.float32):
        return value.to(low)
    if id(value) not in _casts:
        _casts[id(value)] = (value, value.to(low))
    return _casts[id(value)][1]


def _to_high(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


@dataclass
class Counted:
    """What happened in the body of ``on_device``."""

    launches: int = 0  # kernels at least: operations that compute, views left out
    from_host: int = 0  # copies of a tensor of the host to the device
    touched: int = 0  # bytes of what these operations read and wrote
    peak: int = 0  # bytes of what was made within and alive at the same time


class _Count(TorchDispatchMode):
    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted
        self.alive: dict[int, int] = {}  # storage -> its bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        name = str(func)
        out, given = _tensors(result), _tensors((args, kwargs or {}))
        self._keep_account(out)
        if not name.startswith("aten.") or views or name.startswith("aten.empty"):
            return result
        touched = [*out, *given]
        if not any(tensor.device == DEVICE for tensor in touched):
            return result
        if name.startswith(("aten._to_copy", "aten.copy_", "aten._foreach_copy_")):
            self.counted.from_host += any(tensor.device.type == "cpu" for tensor in given)
        self.counted.launches += _launches(func, args)
        self.counted.touched += sum(tensor.nbytes for tensor in touched if tensor.device == DEVICE)
        return result

    def _keep_account(self, made: list[Tensor]) -> None:
        for storage in [tensor.untyped_storage() for tensor in made if tensor.device == DEVICE]:
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.counted.peak = max(self.counted.peak, sum(self.alive.values()))


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


#: Of one kernel over lists (aten/src/ATen/native/cuda/MultiTensorApply.cuh): the most tensors of a list, by the number
#: of lists, and the most blocks, of so many values each.
_TENSORS, _BLOCKS, _VALUES = (110, 64, 48, 36, 30), 320, 65_536


def _launches(func: Any, args: Any) -> int:
    """One, but for operations on lists: those whose tensors do not match fall back to a kernel for each tensor.

    The rule is that of ``can_use_fast_route`` (aten/src/ATen/native/ForeachUtils.h).
    """
    name = func._schema.name.removeprefix("aten::")
    if not name.startswith(("_foreach_", "_fused_adamw_")):
        return 1
    lists = [value for value in args if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor)]
    if name == "_fused_adamw_":
        lists = lists[:4]  # weights, gradients and two moments; the numbers of steps are read by pointer
    first = lists[0]
    types = {tensor.dtype for each in (lists[:1] if name == "_foreach_copy_" else lists) for tensor in each}
    if len(types) > 1 or any(list(map(_layout, each)) != list(map(_layout, first)) for each in lists):
        return len(first)
    depth = len(lists) + (not name.endswith("_") and name != "_foreach_norm")  # a new list of results
    blocks = sum(-(-tensor.numel() // _VALUES) for tensor in first)
    kernels = max(-(-len(first) // _TENSORS[depth - 1]), -(-blocks // _BLOCKS))
    return kernels + (name == "_foreach_norm")  # the parts of a norm are added by another one


def _layout(tensor: Tensor) -> tuple[tuple[int, int], ...]:
    """(size, stride) of each dimension that has more than one place."""
    return tuple((size, step if size > 1 else 0) for size, step in zip(tensor.shape, tensor.stride(), strict=True))


@contextmanager
def on_device() -> Iterator[Counted]:
    """Within, tensors have no values, and what CUDA could not do without the host raises; gives what was counted."""
    with FakeTensorMode(allow_non_fake_inputs=True), counting() as counted:
        yield counted


@contextmanager
def counting() -> Iterator[Counted]:
    """What happens in a part of the body of ``on_device``."""
    counted = Counted()
    with _Count(counted):
        yield counted


def moved(model: Model) -> Model:
    """``model`` with parameters on the device, those that are shared still shared. Call it within ``on_device``."""
    made: dict[int, nn.Parameter] = {}
    teachers: tuple[nn.Module, ...] = getattr(model, "_teachers", ())  # of a student, beside it
    for module in chain(model.modules(), *(teacher.modules() for teacher in teachers)):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(torch.empty(parameter.shape, device=DEVICE))
                module._parameters[name] = made[id(parameter)]
        assert not any(buffer is not None for buffer in module._buffers.values()), "no model has buffers"
    model.to = lambda device: model  # type: ignore[assignment]  # it is there; PyTorch cannot move fake parameters
    return model


class HostBatch:
    """A batch that is divided and counted by its values, which its micro-batches then have no more."""

    def __init__(self, batch: Any, shaped: Callable[[Any], Any]) -> None:
        self._batch = batch
        self._shaped = shaped

    def micro(self, size: int) -> list[Any]:
        with unset_fake_temporarily():
            parts = [self._shaped(part) for part in self._batch.micro(size)]
        return [replace(part, **{name: fake(tensor) for name, tensor in part.tensors().items()}) for part in parts]

    def counts(self) -> dict[str, int]:
        with unset_fake_temporarily():
            return self._batch.counts()

    def tensors(self) -> dict[str, Tensor]:
        return self._batch.tensors()


def fake(tensor: Tensor) -> Tensor:
    """Without values, on the host as before."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)
