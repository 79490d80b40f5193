"""Operators on torch tensors over perfkit's own kernels."""

from perfkit.ops.attention import attention

__all__ = ["attention"]
