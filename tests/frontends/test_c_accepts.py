"""C constructs that become SCoPs: each computes what gcc computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.frontends.c_harness import only_region, same

N = 7


def matrix(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return random.uniform(-2, 2, shape).astype(dtype)
    low = 0 if dtype.startswith("u") else -9
    return random.integers(low, 9, shape).astype(dtype)


def wrap(body: str, header: str = "int n, double A[n][n], double B[n][n]", before: str = "") -> str:
    return f"""#include <math.h>
#include <stdlib.h>
#include <stdint.h>
#include <stdbool.h>
#include <limits.h>
{before}
void f({header})
{{
#pragma scop
{body}
#pragma endscop
}}
"""


LOOPS = {
    "upward": "for (int i = 0; i < n; i++) A[i][0] = i;",
    "inclusive": "for (int i = 0; i <= n - 1; ++i) A[i][1] = i;",
    "downward": "for (int i = n - 1; i >= 0; i--) A[i][0] = A[i][1] + i;",
    "downward strict": "for (int i = n - 1; i > 0; --i) A[i][0] = A[i - 1][0] + i;",
    "step": "for (int i = 1; i < n; i += 3) A[i][0] = i;",
    "step down": "for (int i = n - 1; i >= 0; i -= 2) A[i][0] = i;",
    "assigned step": "for (int i = 0; i < n; i = i + 2) A[i][0] = i;",
    "assigned step, other side": "for (int i = 0; i < n; i = 2 + i) A[i][0] = i;",
    "not equal": "for (int i = 0; i != n; i++) A[i][0] = i;",
    "not equal down": "for (int i = n - 1; i != -1; i--) A[i][0] = i;",
    "flipped": "for (int i = 0; n > i; i++) A[i][0] = i;",
    "moved term": "for (int i = 0; i + 1 < n; i++) A[i][0] = i;",
    "moved difference": "for (int i = 2; i - 1 < n - 1; i++) A[i - 1][0] = i;",
    "two bounds": "for (int i = 0; i < n && i < 4; i++) A[i][0] = i;",
    "long": "for (long i = 0; i < n; i++) A[i][0] = (double)i;",
    "size_t": "for (size_t i = 0; i < n; i++) A[i][0] = (double)i;",
    "unsigned down": "for (unsigned i = n - 1; i > 0; i--) A[i][0] = i;",
    "comma": "int j; for (int i = 0, j = 3; i < n; i++) A[i][0] = j;",
    "two counters": "int k = 0; for (int i = 0; i < n; i++, k++) A[i][0] = 2.0 * k;",
    "triangle": "for (int i = 0; i < n; i++) for (int j = i; j < n; j++) A[i][j] = A[j][i] + j;",
    "min bound": "for (int i = 0; i < (n < 4 ? n : 4); i++) A[i][0] = i;",
    "constant": "for (int i = 0; i < 5; i++) A[i][0] = i;",
    "sequence": "A[0][0] = 1; for (int i = 0; i < n; i++) A[i][1] = i; A[1][0] = 2;",
}

STATEMENTS = {
    "compound": "for (int i = 0; i < n; i++) { A[i][0] += 2; A[i][1] -= 1; A[i][2] *= 3; "
    "A[i][3] /= 4; }",
    "increment": "for (int i = 0; i < n; i++) { A[i][0]++; --A[i][1]; }",
    "chain": "for (int i = 0; i < n; i++) A[i][0] = B[i][0] = i + 1;",
    "comma": "for (int i = 0; i < n; i++) A[i][0] = 1, B[i][0] = A[i][0] + i;",
    "if": "for (int i = 0; i < n; i++) if (i > 2) A[i][0] = 1; else A[i][0] = 2;",
    "if and": "for (int i = 0; i < n; i++) if (i > 2 && i != 4 || !(i < n - 1)) A[i][0] = 1;",
    "if on data": "for (int i = 0; i < n; i++) if (A[i][0] > 0) B[i][0] = A[i][0];",
    "if mixed": "for (int i = 0; i < n; i++) if (i > 0 && A[i][0] > A[i - 1][0]) B[i][0] = i;",
    "modulo": "for (int i = 0; i < n; i++) if (i % 2 == 0) A[i][0] = i; else A[i][0] = -i;",
    "ternary": "for (int i = 0; i < n; i++) A[i][0] = A[i][1] > B[i][1] ? A[i][1] : B[i][2];",
    "ternary on index": "for (int i = 0; i < n; i++) A[i][0] = i > 0 ? A[i - 1][0] : 7;",
    "local": "for (int i = 0; i < n; i++) { double t = B[i][0]; A[i][0] = t * t; }",
    "local array": "double t[n]; for (int i = 0; i < n; i++) t[i] = B[i][1]; "
    "for (int i = 0; i < n; i++) A[i][0] = t[n - 1 - i];",
    "int local in subscript": "for (int i = 0; i < n; i++) { int k = n - 1 - i; A[k][0] = i; }",
    "block": "{ int k = 1; { A[k][k] = 3; } }",
    "shadowing": "for (int i = 0; i < n; i++) { double n = 2; A[i][0] = n; }",
    "dereference": "for (int i = 0; i < n; i++) *(A[i] + 1) = i;",
    "empty": ";;for (int i = 0; i < n; i++) { ; A[i][0] = 1; ; } (void)0;",
    "pragma inside": "#pragma omp parallel for\nfor (int i = 0; i < n; i++) A[i][0] = i;",
    "comment": "for (int i = 0; i < n; i++) A[i][0] = i; /* a * b */ // c",
    "half of n": "for (int i = 0; i < n / 2; i++) A[2 * i][0] = A[2 * i + 1][0];",
    "division in subscript": "for (int i = 0; i < n; i++) A[i / 2][i % 2] = i;",
    "bool": "bool any = false; for (int i = 0; i < n; i++) any = any || A[i][0] > 1; "
    "A[0][0] = any;",
}

VALUES = {
    "int division": "A[0][0] = n / 2; A[0][1] = -n / 2; A[0][2] = n % 3; A[0][3] = -n % 3;",
    "int of float": "for (int i = 0; i < n; i++) A[i][0] = (int)B[i][0];",
    "float literal": "for (int i = 0; i < n; i++) A[i][0] = B[i][0] * 0.1f;",
    "float arithmetic": "for (int i = 0; i < n; i++) { float t = B[i][0]; "
    "A[i][0] = t * t + 0.1f; }",
    "float and double": "for (int i = 0; i < n; i++) { float t = B[i][0]; A[i][0] = t * 0.1; }",
    "unsigned": "for (int i = 0; i < n; i++) { unsigned u = i; A[i][0] = u - 3u > 5u; }",
    "char": "for (int i = 0; i < n; i++) { signed char c = 40 * i; A[i][0] = c; }",
    "unsigned char": "for (int i = 0; i < n; i++) { unsigned char c = 100 * i; A[i][0] = c + 1; }",
    "long": "for (int i = 0; i < n; i++) { long t = i; A[i][0] = t * 3000000000L; }",
    "shift": "for (int i = 0; i < n; i++) A[i][0] = (1 << i) | (i >> 1) & 3 ^ i;",
    "invert": "for (int i = 0; i < n; i++) A[i][0] = ~i;",
    "comparison as number": "for (int i = 0; i < n; i++) A[i][0] = (B[i][0] > 0) + (i == 2);",
    "not": "for (int i = 0; i < n; i++) A[i][0] = !(B[i][0] > 0) * 2;",
    "math": "for (int i = 0; i < n; i++) A[i][0] = sqrt(fabs(B[i][0])) + fmax(B[i][0], 0.5);",
    "math float": "for (int i = 0; i < n; i++) A[i][0] = sqrtf(fabsf(B[i][0])) + floorf(B[i][1]);",
    "abs": "for (int i = 0; i < n; i++) A[i][0] = abs(i - 3);",
    "max macro": "for (int i = 0; i < n; i++) A[i][0] = B[i][0] > B[i][1] ? B[i][0] : B[i][1];",
    "hexadecimal": "A[0][0] = 0x1F + 017 + 'a' + 10u + 3L;",
    "sizeof": "A[0][0] = sizeof(double) + sizeof(int);",
    "index as value": "for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) "
    "A[i][j] = i * j + n;",
    "negative zero": "for (int i = 0; i < n; i++) A[i][0] = -0.0 * i;",
    "INT_MAX": "A[0][0] = INT_MAX; A[0][1] = M_PI; A[0][2] = UINT64_MAX;",
}


@pytest.mark.parametrize("body", [*LOOPS.values()], ids=[*LOOPS])
def test_loops(tmp_path: Path, body: str) -> None:
    same(tmp_path, wrap(body), {"n": N, "A": matrix(N, N), "B": matrix(N, N, seed=1)})


@pytest.mark.parametrize("body", [*STATEMENTS.values()], ids=[*STATEMENTS])
def test_statements(tmp_path: Path, body: str) -> None:
    n = 8 if "2 * i" in body else N
    same(tmp_path, wrap(body), {"n": n, "A": matrix(n, n), "B": matrix(n, n, seed=1)})


@pytest.mark.parametrize("body", [*VALUES.values()], ids=[*VALUES])
def test_values(tmp_path: Path, body: str) -> None:
    same(tmp_path, wrap(body), {"n": N, "A": matrix(N, N), "B": matrix(N, N, seed=1)})


@pytest.mark.parametrize(
    ("ctype", "dtype"),
    [
        ("char", "int8"), ("unsigned char", "uint8"), ("short", "int16"), ("int", "int32"),
        ("unsigned", "uint32"), ("long long", "int64"), ("size_t", "uint64"),
        ("int32_t", "int32"), ("uint8_t", "uint8"), ("float", "float32"), ("double", "float64"),
    ],
)  # fmt: skip
def test_element_types(tmp_path: Path, ctype: str, dtype: str) -> None:
    body = "for (int i = 1; i < n; i++) A[i] = A[i - 1] * 3 + A[i] / 2 - 1;"
    source = wrap(body, f"int n, {ctype} *A")
    same(tmp_path, source, {"n": 20, "A": matrix(20, dtype=dtype)})


class TestShapes:
    def test_pointer_to_rows(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) A[i][j] *= 2;",
            "int n, int m, double (*A)[m]",
        )
        region = same(tmp_path, source, {"n": 4, "m": 3, "A": matrix(4, 3)})
        assert region.scop is not None
        assert [str(e) for e in region.scop.array("A").shape] == ["n", "m"]

    def test_constant_extents_bound_the_sizes(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) A[i][j] = 1;",
            "int n, double A[10][12]",
        )
        region = same(tmp_path, source, {"n": 10, "A": matrix(10, 12)})
        assert region.scop is not None
        assert not region.scop.context.contains({"n": 11})

    def test_global_array(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < 9; i++) G[i] = i; for (int i = 0; i < 9; i++) A[i] = G[8 - i];",
            "double *A",
            "#define SIZE 9\nstatic double G[SIZE];",
        )
        same(tmp_path, source, {"A": matrix(9)})

    def test_typedef_and_macros(self, tmp_path: Path) -> None:
        before = "typedef float real;\n#define LENGTH 6\n#define AT(i, j) A[i][j]\nenum { K = 2 };"
        source = wrap(
            "for (int i = 0; i < LENGTH; i++) AT(i, K) = i;", "real A[LENGTH][K + 1]", before
        )
        region = same(tmp_path, source, {"A": matrix(6, 3, dtype="float32")})
        assert region.constants == (("LENGTH", 6),)

    def test_loop_variables_declared_outside(self, tmp_path: Path) -> None:
        source = """void f(int n, double A[n]) {
  int i;
#pragma scop
  for (i = 0; i < n; i++) A[i] = i;
  for (i = 1; i < n; i++) A[i] += A[i - 1];
#pragma endscop
  for (i = 0; i < n; i++) A[i] += 1;
}"""
        region = only_region(tmp_path, source)
        assert region.error is None

    def test_scalars(self, tmp_path: Path) -> None:
        source = """void f(int n, double alpha, int shift, double A[n], double *out) {
  double sum = 0; int k;
#pragma scop
  sum = alpha;
  for (int i = 0; i < n; i++) sum += A[i] * shift;
  out[0] = sum;
#pragma endscop
}"""
        arguments = {"n": 5, "alpha": 0.5, "shift": -3, "A": matrix(5), "out": np.zeros(1)}
        region = same(tmp_path, source, arguments)
        assert region.scop is not None
        assert {s.name for s in region.scop.scalars} == {"alpha", "shift"}
        assert not region.scop.array("sum").live_out

    def test_variable_read_later_is_live(self, tmp_path: Path) -> None:
        source = """double f(int n, double A[n]) {
  double sum = 0, other;
#pragma scop
  for (int i = 0; i < n; i++) { sum += A[i]; other = sum; }
#pragma endscop
  other = 1;
  return sum + other;
}"""
        scop = only_region(tmp_path, source).scop
        assert scop is not None
        assert scop.array("sum").live_out and not scop.array("other").live_out

    def test_automatic_array_unused_later_is_dead(self, tmp_path: Path) -> None:
        source = """void f(int n, double A[n]) {
  double t[n];
#pragma scop
  for (int i = 0; i < n; i++) t[i] = A[i];
  for (int i = 0; i < n; i++) A[i] = t[n - 1 - i];
#pragma endscop
}"""
        scop = only_region(tmp_path, source).scop
        assert scop is not None
        assert not scop.array("t").live_out and scop.array("A").live_out


class TestDelinearization:
    def shape(self, tmp_path: Path, source: str, arguments: dict[str, Any]) -> list[str]:
        region = same(tmp_path, source, arguments)
        assert region.scop is not None
        return [str(e) for e in region.scop.array("A").shape]

    def test_matrix(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) A[i * m + j] += i - j;",
            "int n, int m, double *A",
        )
        assert self.shape(tmp_path, source, {"n": 3, "m": 4, "A": matrix(12)}) == ["n", "m"]

    def test_product(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) for (int k = 0; k < p; k++)"
            " A[i * m + j] += B[i * p + k] * C[j + k * m];",
            "int n, int m, int p, double *A, double *B, double *C",
        )
        arguments = {"n": 3, "m": 4, "p": 2, "A": matrix(12), "B": matrix(6), "C": matrix(8)}
        assert self.shape(tmp_path, source, arguments) == ["n", "m"]

    def test_cube_with_halo(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 1; i <= n; i++) for (int j = 1; j <= m; j++) for (int k = 1; k <= p; k++)"
            " A[(i * (m + 2) + j) * (p + 2) + k] +="
            " A[((i - 1) * (m + 2) + j + 1) * (p + 2) + k - 1];",
            "int n, int m, int p, double *A",
        )
        arguments = {"n": 2, "m": 3, "p": 4, "A": matrix(4 * 5 * 6)}
        assert self.shape(tmp_path, source, arguments) == ["n + 1", "m + 2", "p + 2"]

    def test_last_column(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) { A[i * n] = 1; A[i * n + n - 1] = 2; "
            "A[(n - 1) * n + i] = 3; A[i * n + i] = 4; A[i] = 5; }",
            "int n, double *A",
        )
        assert self.shape(tmp_path, source, {"n": 5, "A": matrix(25)}) == ["n", "n"]

    def test_pixels(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < h; i++) for (int j = 0; j < w; j++) for (int c = 0; c < 3; c++)"
            " A[(i * w + j) * 3 + c] = 255 - A[(i * w + j) * 3 + c];",
            "int h, int w, unsigned char *A",
        )
        arguments = {"h": 3, "w": 4, "A": matrix(36, dtype="uint8")}
        assert self.shape(tmp_path, source, arguments) == ["h", "3*w"]

    def test_constant_rows(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < 10; i++) for (int j = 0; j < 20; j++) A[20 * i + j] = i - j;",
            "double *A",
        )
        assert self.shape(tmp_path, source, {"A": matrix(200)}) == ["10", "20"]

    def test_size_t_subscripts(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) A[(size_t)i * m + j] = i;",
            "int n, int m, double *A",
        )
        assert self.shape(tmp_path, source, {"n": 3, "m": 4, "A": matrix(12)}) == ["n", "m"]

    def test_leading_dimension_is_tested_at_entry(self, tmp_path: Path) -> None:
        source = wrap(
            "for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) A[i * ld + j] = i - j;",
            "int n, int m, int ld, double *A",
        )
        region = same(tmp_path, source, {"n": 3, "m": 4, "ld": 5, "A": matrix(15)})
        assert region.scop is not None
        assert not region.scop.context.contains({"n": 3, "m": 4, "ld": 3})
