"""Operators on torch tensors over perfkit's own kernels."""

from perfkit.ops.attention import attention
from perfkit.ops.switch_attention import attention_switch, switch_attention

__all__ = ["attention", "attention_switch", "switch_attention"]
