"""A compiled kernel, callable on anything that shows its CPU memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from perfkit import _cpu, log
from perfkit.errors import CallError, KernelFailure, LayoutError, LoadError, OverlapError
from perfkit.runtime import arguments, measure
from perfkit.runtime.call import Precondition, named_sizes, ordered
from perfkit.runtime.entry import Entry
from perfkit.runtime.signature import Signature

# Distinct combinations of shapes a kernel remembers as checked before it starts over.
REMEMBERED = 256
REFUSED = 1


class BoundCall:
    """A kernel with its checked arguments; each call of it runs the compiled code once.

    Holds the arguments alive. Their sizes and memory must not be changed (``ndarray.resize``).
    """

    __slots__ = ("_entry", "_keep", "_name", "_pointers", "_results")

    def __init__(
        self, name: str, entry: Entry, addresses: list[int], keep: Any, results: list[Any]
    ) -> None:
        self._name = name
        self._entry = entry
        self._pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        self._keep = keep
        self._results = results

    def run(self) -> int:
        """Run once without the GIL; returns the compiled function's code."""
        return self._entry(self._pointers)

    def __call__(self) -> Any:
        """Run once; returns None, the result, or a tuple of the results, as Python numbers.

        Raises:
            KernelFailure: the compiled code reported a failure.
        """
        code = self._entry(self._pointers)
        if code:
            raise failure(self._name, code)
        return self.results()

    def results(self) -> Any:
        """What the last run returned: None, one Python number, or a tuple of them."""
        if not self._results:
            return None
        if len(self._results) == 1:
            return self._results[0].item()
        return tuple(result.item() for result in self._results)

    def seconds(self) -> float:
        """Run once and return the seconds it took: a candidate for ``measure.interleaved``."""
        address = ctypes.cast(self._entry.function, ctypes.c_void_p).value or 0
        return measure.time_calls(address, ctypes.addressof(self._pointers))[0]


def failure(name: str, code: int) -> KernelFailure:
    what = "could not get memory for its buffers" if code == REFUSED else f"failed with code {code}"
    return KernelFailure(
        f"kernel {name} {what}; {'nothing' if code == REFUSED else 'part'} written"
    )


class Kernel:
    """A compiled kernel.

    Call it with the arguments of :attr:`signature`, in order or by keyword: NumPy arrays, torch
    CPU tensors, or anything with ``__dlpack__``, ``__array_interface__`` or a buffer. Memory is
    used in place, never copied; written arrays change. Calls from several threads are fine.

    Attributes:
        signature: what it is called with.
        source: the generated C.
        schedule: the script that leads from the program to that C.
        path: the shared object it runs.
    """

    def __init__(
        self,
        signature: Signature,
        so_path: Path | str,
        source: str,
        schedule: str = "",
        *,
        explain: Callable[[], str] | str = "",
        precondition: Precondition | None = None,
        fallback: Callable[..., Any] | None = None,
    ) -> None:
        """Load the shared object.

        Args:
            precondition: given the sizes by name, returns a message when the program would
                access an array out of its bounds; called once per combination of sizes.
            fallback: the original function. A call that the compiled code cannot take (type,
                layout, overlap, device, bounds) goes there, with one warning per reason.

        Raises:
            LoadError: the file is no library, or has no ``<name>_call``.
        """
        self.signature = signature
        self.source = source
        self.schedule = schedule
        self.path = Path(so_path)
        self.__name__ = signature.name
        self.__doc__ = f"Compiled kernel {signature}."
        self._explain = explain
        self._precondition = precondition
        self._fallback = fallback
        self._told: set[type[CallError]] = set()
        self._checked: dict[tuple[Any, ...], tuple[Any, list[int], list[int]]] = {}
        self._inputs = signature.inputs
        written = [p.written for p in self._inputs if p.kind == "array"]
        count = len(written)
        self._written = [i for i, p in enumerate(self._inputs) if p.written]
        self._pairs = [(i, j) for i in range(count) for j in range(count) if written[i] and i != j]
        try:
            function = getattr(ctypes.CDLL(str(so_path)), f"{signature.name}_call")
        except (OSError, AttributeError) as error:
            raise LoadError(
                f"{so_path}: cannot load kernel {signature.name!r} ({error}): clear the cache "
                "(perfkit cache clear) and try again"
            ) from error
        function.restype = ctypes.c_int64
        function.argtypes = (ctypes.c_void_p,)
        self._entry = Entry(function)

    def __repr__(self) -> str:
        return f"<Kernel {self.signature}>"

    @property
    def entry(self) -> Entry:
        """The compiled function, for callers that check their arguments themselves."""
        return self._entry

    def explain(self) -> str:
        """Why this kernel looks as it does, in words."""
        return self._explain() if callable(self._explain) else self._explain

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Run the kernel on these arguments; returns its results as Python numbers, or None.

        Raises:
            CallError: the call is refused, before anything ran (see its subclasses).
            KernelFailure: the compiled code reported a failure.
        """
        if keywords or len(args) != len(self._inputs):
            args = ordered(self.signature, args, keywords)
        try:
            bound = self.bind(*args)
        except CallError as error:
            if self._fallback is None:
                raise
            self._tell(error)
            return self._fallback(*args)
        code = bound.run()
        if code:
            if code == REFUSED and self._fallback is not None:
                return self._fallback(*args)
            raise failure(self.signature.name, code)
        return bound.results()

    def bind(self, *args: Any) -> BoundCall:
        """Check the arguments once, for many runs (measuring) on the same memory.

        Raises:
            CallError: as for a call.
        """
        if len(args) != len(self._inputs):
            args = ordered(self.signature, args, {})
        layout: list[Any] = []
        arrays: list[Any] = []
        pointers: list[int] = []
        values: list[Any] = []
        array_addresses: list[int] = []
        for parameter, value in zip(self._inputs, args, strict=True):
            kind = parameter.kind
            if kind == "array":
                array = value if type(value) is np.ndarray else arguments.as_array(value, parameter)
                arrays.append(array)
                address = _cpu.address(array)
                array_addresses.append(address)
                pointers.append(address)
                layout += (type(array), array.shape, array.strides, array.dtype)
                layout.append(array.flags.writeable)
            elif kind == "size":
                layout.append(arguments.size_value(value, parameter))
            else:
                holder = arguments.scalar_value(value, parameter)
                values.append(holder)
                pointers.append(_cpu.address(holder))
        key = tuple(layout)
        checked = self._checked.get(key)
        if checked is None:
            checked = self._check(args, arrays, key)
        sizes, size_pointers, lengths = checked
        self._check_memory(arrays, array_addresses, lengths)
        results: list[Any] = []
        if len(self._inputs) != len(self.signature.parameters):
            pointers, results = self._with_results(pointers)
        for i in self._written:
            if type(args[i]) is not np.ndarray:
                arguments.mark_written(args[i])
        keep = (args, arrays, values, sizes)
        return BoundCall(
            self.signature.name, self._entry, size_pointers + pointers, keep, results
        )

    # --- checks ----------------------------------------------------------------------------

    def _check(
        self, args: tuple[Any, ...], arrays: list[Any], key: tuple[Any, ...]
    ) -> tuple[Any, list[int], list[int]]:
        """All that depends only on the layouts and sizes in ``key``, which is remembered."""
        taken = (
            (p, v) for p, v in zip(self._inputs, args, strict=True) if p.kind == "array"
        )
        for array, (parameter, value) in zip(arrays, taken, strict=True):
            arguments.check_layout(array, parameter, value)
        shapes = [array.shape for array in arrays]
        named = named_sizes(self.signature, args, shapes, self._precondition)
        block = np.array(list(named.values()), dtype=np.int64)
        # Generated code gets the same block from every thread, so nobody may write to it.
        block.flags.writeable = False
        first = _cpu.address(block)
        checked = (block, [first + 8 * i for i in range(len(named))], [a.nbytes for a in arrays])
        if len(self._checked) >= REMEMBERED:
            self._checked.clear()
        self._checked[key] = checked
        return checked

    def _check_memory(self, arrays: list[Any], addresses: list[int], lengths: list[int]) -> None:
        """What may change from call to call although the layouts are the same."""
        for i, j in self._pairs:
            if (
                addresses[i] < addresses[j] + lengths[j]
                and addresses[j] < addresses[i] + lengths[i]
            ):
                names = [p.name for p in self._inputs if p.kind == "array"]
                raise OverlapError(
                    f"argument {names[i]!r}, which the kernel writes, shares memory with argument "
                    f"{names[j]!r}: pass a copy of one of them"
                )
        for i, address in enumerate(addresses):
            # Every element type is aligned to at most 8 bytes, so this spares asking the dtype.
            if address & 7 and address % arrays[i].dtype.alignment:
                names = [p.name for p in self._inputs if p.kind == "array"]
                raise LayoutError(
                    f"argument {names[i]!r} starts at an address that is not a multiple of its "
                    f"alignment, {arrays[i].dtype.alignment} bytes: pass a copy"
                )

    def _with_results(self, inputs: list[int]) -> tuple[list[int], list[Any]]:
        """The pointers of all parameters that are not sizes, results in their places."""
        pointers, results, remaining = [], [], iter(inputs)
        for parameter in self.signature.parameters:
            if parameter.kind == "result":
                results.append(np.zeros((), dtype=parameter.dtype))
                pointers.append(_cpu.address(results[-1]))
            elif parameter.kind != "size":
                pointers.append(next(remaining))
        return pointers, results

    def _tell(self, error: CallError) -> None:
        if type(error) not in self._told:
            self._told.add(type(error))
            log.get("kernel").warning(
                "%s: running the original function instead: %s", self.signature.name, error
            )
