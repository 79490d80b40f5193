"""nussinov: RNA folding, the largest number of pairs within each interval of bases.

Bases are 0..3 and pair when they sum to 3.
"""

import numpy as np

from bench.polybench.sizes import size_table

SIZES = size_table("n", (13,), (60,), (180,), (500,), (2500,), (5500,))
OUTPUTS = ("table",)
TEMPORARIES = ()
TOLERANCE = 0.0


def nussinov(seq, table):
    n = seq.shape[0]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            if j - 1 >= 0:
                table[i, j] = max(table[i, j], table[i, j - 1])
            if i + 1 < n:
                table[i, j] = max(table[i, j], table[i + 1, j])
            if j - 1 >= 0 and i + 1 < n:
                if i < j - 1:
                    table[i, j] = max(
                        table[i, j], table[i + 1, j - 1] + (1 if seq[i] + seq[j] == 3 else 0)
                    )
                else:
                    table[i, j] = max(table[i, j], table[i + 1, j - 1])
            for k in range(i + 1, j):
                table[i, j] = max(table[i, j], table[i, k] + table[k + 1, j])


def arguments(sizes, rng):
    n = sizes["n"]
    return {
        "seq": rng.integers(0, 4, n, dtype=np.int32),
        "table": np.zeros((n, n), dtype=np.int32),
    }


def FLOPS(sizes):
    return sizes["n"] ** 3 / 3.0
