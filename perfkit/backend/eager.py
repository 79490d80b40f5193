"""``options={"fallback": "eager"}``: regions as with Inductor, the rest in eager torch.

For debugging: it separates mistakes of perfkit from mistakes of Inductor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table

from perfkit.backend.passes import Regions


def compile_graph(
    model: fx.GraphModule, inputs: Sequence[Any], own: Regions
) -> Callable[..., Any]:
    """Compile one graph without Inductor."""

    def compiler(graph: fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        own(graph.graph)
        graph.recompile()
        found: Callable[..., Any] = make_boxed_func(graph.forward)
        return found

    backend = aot_autograd(
        fw_compiler=compiler,
        decompositions=select_decomp_table(),
        partition_fn=min_cut_rematerialization_partition,
    )
    found: Callable[..., Any] = backend(model, inputs)
    return found


__all__ = ["compile_graph"]
