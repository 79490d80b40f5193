"""What earlier processes decided about regions: one small JSON file each, in the cache folder.

A damaged file counts as missing. Files appear by renaming, so readers see all of one or nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "regions"


class Records:
    """Dictionaries by key, below a folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def get(self, key: str) -> dict[str, Any] | None:
        """The dictionary of a key; None when there is none, or it cannot be read."""
        try:
            text = self._path(key).read_text()
            digest, _, body = text.partition("\n")
            if digest != hashlib.sha256(body.encode()).hexdigest():
                return None
            found = json.loads(body)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a dictionary; a folder that cannot be written keeps nothing."""
        body = json.dumps(dict(record), sort_keys=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(f"{digest}\n{body}")
                os.replace(name, self._path(key))
            except OSError:
                os.unlink(name)
                raise

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


__all__ = ["Records"]
