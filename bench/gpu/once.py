"""``python -m bench.gpu.once``: every kernel once on small problems, for compute-sanitizer."""

from __future__ import annotations

import sys

import torch

from perfkit.ops import attention

DIMS = (32, 64, 72, 80, 96, 128)


def main() -> int:
    for dim in DIMS:
        for biased in (False, True):
            q = torch.randn(1, 2, 130, dim, device="cuda", dtype=torch.bfloat16)
            k, v = (torch.randn_like(q[:, :1, :70]) for _ in range(2))
            bias = torch.randn(2, 130, 70, device="cuda") if biased else None
            leaves = [t.requires_grad_() for t in (q, k, v)]
            out = attention(*leaves, bias=bias, causal=True, layout="HSD")
            torch.autograd.grad(out, leaves, torch.randn_like(out))
    torch.cuda.synchronize()
    sys.stdout.write("done\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
