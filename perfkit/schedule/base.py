"""What the transforms of loop trees share: the protocol, and surgery on trees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from perfkit.analysis.dependences import Analysis
from perfkit.errors import IllegalSchedule, TransformError
from perfkit.ir.affine import Affine
from perfkit.ir.tree import (
    Leaf,
    Loop,
    Node,
    Sequence,
    find_loop,
    fresh_name,
    loops,
    map_loops,
    parse_affine,
    statements,
)
from perfkit.schedule import legality
from perfkit.schedule.state import State

AffineLike = Affine | int | str


class TreeTransform(ABC):
    """A transform that changes the order of instances and nothing else.

    ``str(step)`` is the constructor call that a script carries.
    """

    @abstractmethod
    def rewrites(self, state: State, analysis: Analysis) -> tuple[Node, ...]:
        """The new trees to try, best first, legality not yet known. Raises TransformError."""

    def apply(self, state: State, analysis: Analysis | None = None) -> State:
        """The state after the transform.

        Without ``analysis`` the dependences are computed anew; a script or a search passes the
        one of its compilation. Raises TransformError where the transform does not fit the tree,
        ScriptError for an unknown name, IllegalSchedule where a dependence or a mark forbids it.
        """
        analysis = analysis or Analysis()
        refusal: IllegalSchedule | None = None
        for tree in self.rewrites(state, analysis):
            try:
                legality.check(analysis, state, tree, str(self))
            except IllegalSchedule as error:
                refusal = refusal or error
            else:
                return state.with_tree(tree)
        assert refusal is not None, "a transform proposed no tree"
        raise refusal


def affine(value: AffineLike) -> Affine:
    if isinstance(value, Affine):
        return value
    return Affine.constant(value) if isinstance(value, int) else parse_affine(value)


def require(condition: bool, transform: object, why: str) -> None:
    if not condition:
        raise TransformError(f"{transform}: {why}")


# -- trees -----------------------------------------------------------------------------------


def label(node: Node) -> str:
    """How a script names a node: a loop or a statement by its name."""
    match node:
        case Leaf(statement=name) | Loop(name=name):
            return name
        case Sequence(children=children):
            return label(children[0])


def tidy(node: Node) -> Node:
    """Flatten sequences in sequences and dissolve those with a single child."""
    match node:
        case Loop():
            return replace(node, body=tidy(node.body))
        case Sequence():
            flat: list[Node] = []
            for child in map(tidy, node.children):
                flat += child.children if isinstance(child, Sequence) else (child,)
            return flat[0] if len(flat) == 1 else Sequence(tuple(flat))
        case _:
            return node


def children_of(node: Node) -> tuple[Node, ...]:
    return node.children if isinstance(node, Sequence) else (node,)


def siblings(tree: Node, names: tuple[str, ...], transform: object) -> Sequence:
    """The sequence that has nodes of all these names as children."""

    def search(node: Node) -> Sequence | None:
        match node:
            case Loop(body=body):
                return search(body)
            case Sequence(children=children):
                if set(names) <= {label(c) for c in children}:
                    return node
                return next((s for s in map(search, children) if s is not None), None)
            case _:
                return None

    found = search(tree)
    if found is None:
        raise TransformError(
            f"{transform}: {', '.join(names)} do not stand next to each other in one sequence"
        )
    return found


def replace_node(tree: Node, old: Node, new: Node) -> Node:
    """The tree with the very object ``old`` replaced, then tidied."""

    def visit(node: Node) -> Node:
        if node is old:
            return new
        match node:
            case Loop():
                return replace(node, body=visit(node.body))
            case Sequence():
                return Sequence(tuple(map(visit, node.children)))
            case _:
                return node

    return tidy(visit(tree))


def chain(tree: Node, outer: str) -> tuple[Loop, ...]:
    """The perfect nest that starts at a loop: each but the last holds exactly one loop."""
    found = [find_loop(tree, outer)]
    while isinstance(found[-1].body, Loop):
        found.append(found[-1].body)
    return tuple(found)


def nest(levels: tuple[Loop, ...], body: Node) -> Node:
    """The loops inside each other, around ``body``."""
    for loop in reversed(levels):
        body = replace(loop, body=body)
    return body


def change_expressions(tree: Node, loop: str, change: Callable[[str, Affine], Affine]) -> Node:
    """Rewrite the schedule of one loop, statement by statement."""
    find_loop(tree, loop)

    def visit(node: Loop) -> Loop:
        if node.name != loop:
            return node
        return replace(node, schedule=tuple((s, change(s, e)) for s, e in node.schedule))

    return map_loops(tree, visit)


def rename_clashes(node: Node, taken: frozenset[str]) -> Node:
    """Give a copied subtree loop names that do not occur in ``taken``."""
    names = set(taken)

    def visit(n: Node) -> Node:
        match n:
            case Loop():
                name = fresh_name(Sequence(()), n.name, frozenset(names))
                names.add(name)
                return replace(n, name=name, body=visit(n.body))
            case Sequence():
                return Sequence(tuple(map(visit, n.children)))
            case _:
                return n

    return visit(node)


def part_of(loop: Loop, body: Node) -> Loop:
    """``loop`` around fewer statements: those of ``body``."""
    keep = set(statements(body))
    schedule = tuple((s, e) for s, e in loop.schedule if s in keep)
    return replace(loop, schedule=schedule, body=body)


def loop_names(tree: Node) -> frozenset[str]:
    return frozenset(loop.name for loop in loops(tree))


__all__ = [
    "AffineLike", "TreeTransform", "affine", "chain", "change_expressions", "children_of",
    "label", "loop_names", "nest", "part_of", "rename_clashes", "replace_node", "require",
    "siblings", "tidy",
]  # fmt: skip
