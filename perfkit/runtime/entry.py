"""The entry of a loaded library, safe to call in a forked child."""

from __future__ import annotations

import os
import threading
from typing import Any


class Entry:
    """Calls ``<name>_call`` of a library; its code is returned.

    After a fork the thread that forked still believes in the OpenMP threads of its parent, and
    its first parallel region would wait for them forever. A thread that the child starts itself
    gets threads of its own, so in a child the call is made from such a thread.
    """

    __slots__ = ("_function", "_home")

    def __init__(self, function: Any) -> None:
        self._function = function
        self._home = os.getpid()

    def __call__(self, pointers: Any) -> int:
        if os.getpid() == self._home:
            code: int = self._function(pointers)
            return code
        return self._from_new_thread(pointers)

    def _from_new_thread(self, pointers: Any) -> int:
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(self._function(pointers)))
        thread.start()
        thread.join()
        return codes[0]

    @property
    def function(self) -> Any:
        """The ctypes function itself, for timing loops."""
        return self._function


__all__ = ["Entry"]
