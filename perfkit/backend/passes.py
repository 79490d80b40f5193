"""The pass that Inductor runs on forward and backward graphs: regions become operators."""

from __future__ import annotations

import hashlib
import json
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch._inductor.fx_passes.post_grad import stable_topological_sort

from perfkit import config, log
from perfkit.backend import program, regions
from perfkit.backend.capture import Region, capture
from perfkit.backend.decide import Decision, Measure, decide
from perfkit.backend.operators import region as region_operator
from perfkit.backend.options import Options
from perfkit.backend.report import GraphReport, RegionReport, Report
from perfkit.errors import BackendError, PerfkitError, UnsupportedError


@dataclass(frozen=True)
class Regions(CustomGraphPass):
    """Replaces regions of a post-grad graph.

    ``uuid`` covers perfkit's sources, the settings, the compiler and the machine: Inductor's caches
    then never serve what another perfkit made.
    """

    options: Options
    report: Report
    measure: Measure | None = None

    def __call__(self, graph: fx.Graph) -> None:
        try:
            self.rewrite(graph)
        except PerfkitError as error:
            if self.options.strict:
                raise BackendError(f"strict: {error}") from error
            log.get("backend").warning("the graph is left to Inductor: %s", error)
        except Exception as error:
            # A mistake here must not cost the user the model.
            if self.options.strict:
                raise
            log.get("backend").warning(
                "the graph is left to Inductor (%s: %s): please report this",
                type(error).__name__, error,
            )  # fmt: skip

    def uuid(self) -> Any:
        shown = {k: v for k, v in asdict(self.options).items() if k != "inductor"}
        settings = config.current()
        parts = [program.identity(settings), shown, torch.get_num_threads(), settings.cflags]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def rewrite(self, graph: fx.Graph) -> None:
        found = GraphReport(sum(n.op == "call_function" for n in graph.nodes))
        self.report.graphs.append(found)
        found.unsuited = regions.left_out(graph)
        everything = self.options.keep or self.measure is not None
        for candidate in regions.find(graph, every=everything):
            operators = regions.summary(candidate.nodes)
            try:
                region = capture(candidate.nodes)
                if not region.outputs:
                    continue
                decision = decide(
                    candidate.kind, operators, region, self.options, self.measure
                )
                if decision.packed:
                    _replace(graph, region, decision)
            except UnsupportedError as error:
                decision = Decision(
                    RegionReport(candidate.kind, operators, False, str(error), trouble=True)
                )
            found.regions.append(decision.report)
        if any(r.kept for r in found.regions):
            stable_topological_sort(graph)
            graph.lint()
        rest = (n for n in graph.nodes if n.op == "call_function")
        names = (regions.base_of(n) for n in rest if n.target is not region_operator)
        found.left = dict(Counter(n for n in names if n not in regions.VIEWS and n != "getitem"))
        self.tell(found)

    def tell(self, found: GraphReport) -> None:
        """One warning per compilation about what could not be done, with the reasons."""
        trouble = Counter(
            f"{r.operators}: {r.reason}" for r in found.regions if r.trouble and not r.kept
        )
        texts = [why if n == 1 else f"{n} times {why}" for why, n in trouble.items()]
        if texts and self.options.strict:
            text = "; ".join(texts)
            raise BackendError(f"strict: regions could not be compiled: {text}")
        texts += [f"{n} operators {why}" for why, n in found.unsuited.items()]
        if texts:
            write = log.get("backend").info if self.report.warned else log.get("backend").warning
            write("left to Inductor: %s", "; ".join(texts))
            self.report.warned = True


def _replace(graph: fx.Graph, region: Region, decision: Decision) -> None:
    """Put the operator in the place of the region's last node; the caller sorts the graph."""
    sizes = [_size_node(graph, symbol, region.inputs) for symbol in region.symbols]
    values = [n.meta["val"] for n in region.outputs]
    with graph.inserting_before(region.nodes[-1].next):
        call = graph.call_function(region_operator, (decision.packed, list(region.inputs), sizes))
        call.meta["val"] = values
        for k, node in enumerate(region.outputs):
            part = graph.call_function(operator.getitem, (call, k))
            part.meta.update(node.meta)
            inside = set(region.nodes)
            for user in [u for u in node.users if u not in inside]:
                user.replace_input_with(node, part)
    for node in reversed(region.nodes):
        graph.erase_node(node)


def _size_node(graph: fx.Graph, symbol: Any, inputs: Sequence[fx.Node]) -> fx.Node:
    """A node that gives the value of a size symbol."""
    for node in graph.nodes:
        value = node.meta.get("val")
        given = node.op == "placeholder" and isinstance(value, torch.SymInt)
        if given and value.node.expr == symbol:
            return node
    for node in inputs:
        value = node.meta["val"]
        assert isinstance(value, Tensor)
        for d, n in enumerate(value.shape):
            if isinstance(n, torch.SymInt) and n.node.expr == symbol:
                with graph.inserting_after(node):
                    size: fx.Node = graph.call_function(torch.ops.aten.sym_size.int, (node, d))
                size.meta["val"] = n
                return size
    raise BackendError(f"no input of the graph has the size {symbol}")


def patches(own: CustomGraphPass, configured: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Inductor's settings with our pass before those that are configured already."""
    given = options.get("post_grad_custom_pre_pass", configured)
    others = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    return {**options, "post_grad_custom_pre_pass": [own, *others]}


__all__ = ["Regions", "patches"]
