"""Writing a random program: its parameters, its arrays and its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random


@dataclass
class Sketch:
    """A program being written: parameters in order of appearance, and lines of code."""

    rng: Random
    sizes: list[str] = field(default_factory=list)
    scalars: list[str] = field(default_factory=list)
    arrays: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def size(self, name: str) -> str:
        if name not in self.sizes:
            self.sizes.append(name)
        return name

    def array(self, name: str, *shape: str) -> str:
        for extent in shape:
            if not extent.isdigit():
                self.size(extent)
        self.arrays[name] = shape
        return name

    def scalar(self, name: str) -> str:
        if name not in self.scalars:
            self.scalars.append(name)
        return name

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def put(self, depth: int, line: str) -> None:
        self.lines.append("    " * (depth + 1) + line)

    def nest(self, depth: int, loops: Sequence[tuple[str, str]], *body: str) -> None:
        """``loops``: iterators and the arguments of their ranges, outermost first."""
        for k, (iterator, bounds) in enumerate(loops):
            self.put(depth + k, f"for {iterator} in range({bounds}):")
        for line in body:
            self.put(depth + len(loops), line)

    def text(self, name: str, dtype: str) -> str:
        formals = [*self.sizes, *(f'{s}: "{dtype}"' for s in self.scalars)]
        formals += [f'{a}: "{dtype}[{", ".join(e)}]"' for a, e in self.arrays.items()]
        return "\n".join([f"def {name}({', '.join(formals)}):", *self.lines, ""])


def at(array: str, *indices: str) -> str:
    return f"{array}[{', '.join(indices)}]"


__all__ = ["Sketch", "at"]
