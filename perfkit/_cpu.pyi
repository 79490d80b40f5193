from typing import Any, TypedDict

import numpy as np

class CacheEntry(TypedDict):
    level: int
    type: str
    bytes: int
    line: int
    shared_by: int

class ProbeEntry(TypedDict):
    architecture: str
    cpu: str
    logical_cores: int
    physical_cores: int
    caches: list[CacheEntry]
    isa: tuple[str, ...]
    simd_bytes: int
    page_bytes: int
    huge_page_bytes: int
    huge_pages: str

def probe() -> ProbeEntry: ...
def now_ns() -> int: ...
def address(array: np.ndarray[Any, Any]) -> int: ...
def time_calls(
    function: int, arguments: int, repeats: int = 1, limit_ns: int = 0
) -> tuple[list[int], int]: ...

class HeapFacts(TypedDict):
    ranks: int
    frames: int
    subtiles: int
    slot_bytes: int
    rank: int
    generation: int
    owner: int
    born: int
    space: int
    joined: int

HEAP_MAX_RANKS: int
HEAP_SLOTS: int
HEAP_HEADER_BYTES: int

def heap_bytes(ranks: int, frames: int, subtiles: int, slot_bytes: int) -> int: ...
def heap_slot(ranks: int, frames: int, subtiles: int, slot_bytes: int, epoch: int) -> int: ...
def heap_initialise(
    base: int,
    ranks: int,
    frames: int,
    subtiles: int,
    slot_bytes: int,
    rank: int,
    generation: int,
    owner: int,
    born: int,
    space: int,
    first_epoch: int,
) -> None: ...
def heap_inspect(base: int, bytes: int) -> HeapFacts | None: ...
def heap_announce(base: int, rank: int) -> None: ...

class Endpoint:
    def __init__(
        self,
        ranks: int,
        frames: int,
        subtiles: int,
        slot_bytes: int,
        rank: int,
        bases: list[int],
        timeout_ns: int,
    ) -> None: ...
    def epoch(self) -> int: ...
    def begin(self) -> int: ...
    def wait_free(self, destination: int, epoch: int) -> int: ...
    def publish(self, destination: int, epoch: int, frame: int, subtile: int) -> None: ...
    def ready(self, source: int, epoch: int, frame: int, subtile: int) -> bool: ...
    def wait_data(self, source: int, epoch: int, frame: int, subtile: int) -> int: ...
    def acknowledge(self, source: int, epoch: int) -> None: ...
    def abort(self, waited_for: int) -> None: ...
    def aborted(self) -> tuple[int, int, int]: ...

def attention_forward(
    sizes: list[int],
    scale: float,
    causal: bool,
    threads: int,
    tensors: list[list[int]],
    isa: str = "",
) -> None: ...
def attention_backward(
    sizes: list[int],
    scale: float,
    causal: bool,
    threads: int,
    tensors: list[list[int]],
    isa: str = "",
) -> None: ...
def attention_isa() -> tuple[str, ...]: ...

def switch_attention_slot_bytes(sizes: list[int], pull: bool, push: bool, kind: int) -> int: ...
def switch_attention_forward(
    endpoint: Endpoint,
    sizes: list[int],
    scale: float,
    causal: bool,
    pull: bool,
    push: bool,
    tensors: list[list[int]],
    threads: int,
    in_order: bool,
    link: float,
    isa: str = "",
) -> int: ...
def switch_attention_backward(
    endpoint: Endpoint,
    sizes: list[int],
    scale: float,
    causal: bool,
    pull: bool,
    push: bool,
    tensors: list[list[int]],
    threads: int,
    in_order: bool,
    link: float,
    isa: str = "",
) -> int: ...
