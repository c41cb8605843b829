"""A GPU without a GPU: a device whose tensors have a shape, a type and a place, and no values.

PyTorch's device for backends written in Python stands in for CUDA, and ``FakeTensorMode`` refuses what a GPU could not
do without the host: a number read back, tensors of two devices in one operation. Autocast is given CUDA's lists (the
operations that this project uses). The interpreter does not end cleanly after ``install``; leave it by ``os._exit``.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

torch.utils.rename_privateuse1_backend("fakegpu")
DEVICE = torch.device("fakegpu", 0)

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
    _kept.extend((fallthrough, kernels))  # what is not referenced is unregistered
    clear = torch.clear_autocast_cache

    def cleared() -> None:
        _casts.clear()
        clear()

    torch.clear_autocast_cache = cleared  # called where an outermost autocast ends


_kept: list[Any] = []


def _kernel(operation: Callable[..., Any], cast: Callable[[Any], Any]) -> Callable[..., Any]:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

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


def _launches(func: Any, args: Any) -> int:
    """One, but for operations on lists whose tensors do not match: they fall back to a kernel for each tensor."""
    if not func._schema.name.startswith("aten::_foreach_"):
        return 1
    lists = [value for value in args if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor)]
    alike = all([tensor.shape for tensor in each] == [tensor.shape for tensor in lists[0]] for each in lists)
    return 1 if alike else len(lists[0])


@contextmanager
def on_device() -> Iterator[Counted]:
    """Within, tensors have no values, and what CUDA could not do without the host raises; gives what was counted."""
    counted = Counted()
    with FakeTensorMode(allow_non_fake_inputs=True), _Count(counted):
        yield counted


def moved(model: nn.Module) -> nn.Module:
    """``model`` with parameters on the device, those that are shared still shared. Call it within ``on_device``."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
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

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def micro(self, size: int) -> list[Any]:
        with unset_fake_temporarily():
            parts = list(self._batch.micro(size))
        return [replace(part, **{name: fake(tensor) for name, tensor in part.tensors().items()}) for part in parts]

    def counts(self) -> dict[str, int]:
        with unset_fake_temporarily():
            return self._batch.counts()

    def tensors(self) -> dict[str, Tensor]:
        return self._batch.tensors()


def fake(tensor: Tensor) -> Tensor:
    """Without values, on the host as before."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)
