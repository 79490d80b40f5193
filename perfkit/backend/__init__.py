"""``torch.compile(model, backend="perfkit")``: polyhedral regions inside Inductor's graphs."""

from perfkit.backend.compile import perfkit, reset
from perfkit.backend.explain import explain

__all__ = ["explain", "perfkit", "reset"]
