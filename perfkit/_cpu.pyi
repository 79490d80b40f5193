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
