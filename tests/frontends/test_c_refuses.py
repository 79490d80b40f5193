"""What leaves a region as it was: one message each, with file, line, construct and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from perfkit import config
from perfkit.errors import CompilerNotFound, SourceFileError, SyntaxProblem
from perfkit.frontends.c import parse_file
from tests.frontends.c_harness import only_region, parse

HEADER = """#include <math.h>
struct point { double x; double w[9]; };
double user(double x);
double sin(double x) { return x; }
void f(int n, double A[n][n], double *x, double **rows, struct point *p, volatile int *v,
       _Complex double *z, long double *q, const int *row)
{
  int i, j;
#pragma scop
"""

REFUSALS = {
    "while (x[0] > 0) x[0]--;": "while: only counted for loops can be handled",
    "do x[0]--; while (x[0] > 0);": "do-while: only counted for loops can be handled",
    "for (i = 0; i < n; i++) { if (x[i] > 0) break; }": "break: jumps cannot be handled",
    "for (i = 0; i < n; i++) { if (x[i] > 0) continue; }": "continue: jumps cannot be handled",
    "for (i = 0; i < n; i++) return;": "return: jumps cannot be handled",
    "goto end;": "goto: jumps cannot be handled",
    "switch (n) { case 1: x[0] = 1; }": "switch: jumps cannot be handled",
    "for (i = 0; i < n; i++) x[i] = user(x[i]);":
        "call of user(): only functions of the C library's math can be called",
    "for (i = 0; i < n; i++) x[i] = sin(x[i]);":
        "call of sin(): only functions of the C library's math can be called",
    "user(1);": "call of user(): its effects are unknown",
    "rows[0][0] = 1;": "rows: is a pointer to pointers; its rows may lie anywhere in memory",
    "p->x = 1;": "struct member: only plain arrays and variables are known",
    "x[0] = p[0].w[1];": "struct member: only plain arrays and variables are known",
    "x[0] = v[0];": "v: is volatile",
    "z[0] = 1;": "z: its type (_Complex) cannot be handled",
    "q[0] = 1;": "q: its type (long double) cannot be handled",
    "x = x + 1;": "x: a pointer is used as a value",
    "A[0] = x;": "x: a pointer is used as a value",
    "x[0] = A[0][0][0];": "A: has more subscripts than dimensions",
    "double t[2] = {1, 2};": "t: an initialiser list cannot be handled",
    "static double t; t = 1;": "t: static and extern outlive the region",
    "x[i] = 1; for (i = 0; i < n; i++) x[i] = 2;":
        "i: a loop variable is used outside its loop",
    "for (i = 0; i < n; i++) i = 2;": "i: a loop variable is assigned in the body of its loop",
    "for (i = 0; i < n; i++) for (i = 0; i < n; i++) x[i] = 2;":
        "i: is the variable of two nested loops",
    "for (double t = 0; t < n; t++) x[0] = t;": "for: the loop variable t is not an integer",
    "for (i = 1; i < n; i *= 2) x[i] = 2;":
        "for: its step is not a constant added to the loop variable",
    "for (i = 0; i < n; i += n) x[i] = 2;":
        "for: its step is not a constant added to the loop variable",
    "for (i = 0; i < n; i++) for (j = row[i]; j < row[i + 1]; j++) x[j] = 2;":
        "loop over j: its range is not affine: it depends on data (row[...])",
    "for (i = 0; i < n; i++) x[row[i]] = 2;":
        "subscript of x: is not affine: it depends on data (row[...])",
    "for (i = 0; i < n;) x[i] = 2;": "for: has no step; write i++, i += 2 or the like",
    "for (i = 0; i < n; i--) x[i] = 2;": "for: i moves away from its bound",
    "for (i = 0; i != n; i += 2) x[i] = 2;":
        "for: a condition with != needs a step of 1 or -1",
    "for (i = 0; x[i] > 0; i++) x[i] = 2;": "for: its condition is not a bound of i",
    "for (unsigned k = n; k >= 0; k--) x[k] = 2;":
        "integer arithmetic: an unsigned variable is always >= 0: the loop never ends",
    "for (i = 0; i < n; i++) x[i * i] = 2;":
        "subscript of x: is not affine, and the accesses do not agree on a shape with rows",
    "for (i = 0; i < n; i++) for (j = 0; j < n; j++) x[i * n + j] = x[i * (n + 3) + j];":
        "subscript of x: is not affine, and the accesses do not agree on a shape with rows",
    "for (i = 0; i < n; i++) x[i - n] = 2;": "subscript of x: may be negative",
    "for (i = 0; i < n; i++) A[0][i + 1] = 2;": "subscript of A: leaves its row of the array",
    "x[0] = 1 + (x[1] = 2);": "assignment: stands inside an expression",
    "x[0] = i++;": "operator ++: changes a variable in an expression",
    "x[0] = undeclared;": "undeclared: is not declared",
    "typedef int T; x[0] = (T)1;": "typedef: cannot stand inside a region",
}  # fmt: skip


@pytest.mark.parametrize(("body", "message"), [*REFUSALS.items()])
def test_refused(tmp_path: Path, body: str, message: str) -> None:
    region = only_region(tmp_path, f"{HEADER}{body}\n#pragma endscop\nend: ;\n}}\n")
    assert region.scop is None
    line = HEADER.count("\n") + 1
    assert str(region.error) == f"{tmp_path}/program.c:{line}: {message}"


class TestAfterTheRegion:
    SOURCE = """void f(int n, double *x) {
  int i;
#pragma scop
  for (i = 0; i < n; i++) x[i] = 2;
#pragma endscop
  %s
}
"""

    @pytest.mark.parametrize(
        "rest",
        ["x[0] = i;", "if (n > 3) i = 0; x[0] = i;", "while (n--) x[i] = 1;", "g(&i);",
         "x[0] = n > 2 ? 1 : i;", "for (; i < n; i++) x[0] = 1;"],
    )  # fmt: skip
    def test_loop_variable_is_read(self, tmp_path: Path, rest: str) -> None:
        error = only_region(tmp_path, "int g(int *);\n" + self.SOURCE % rest).error
        assert "loop variable i: its value may be read after the region" in str(error)

    @pytest.mark.parametrize(
        "rest",
        ["", "i = 0; x[0] = i;", "for (i = 0; i < n; i++) x[i] = i;",
         "if (n) i = 1; else i = 2; x[0] = i;", "{ int i = 3; x[0] = i; }",
         "for (int i = 0; i < n; i++) x[i] = i;", "x[0] = sizeof(i);"],
    )  # fmt: skip
    def test_loop_variable_is_not_read(self, tmp_path: Path, rest: str) -> None:
        assert only_region(tmp_path, self.SOURCE % rest).error is None

    def test_loop_around_the_region(self, tmp_path: Path) -> None:
        source = """void f(int n, double *x) {
  int i = 0;
  while (x[0] > 0) {
    x[i] -= 1;
#pragma scop
    for (i = 0; i < n; i++) x[i] = 2;
#pragma endscop
  }
}
"""
        assert "loop variable i" in str(only_region(tmp_path, source).error)

    def test_declared_inside_used_after(self, tmp_path: Path) -> None:
        source = """void f(int n, double *x) {
#pragma scop
  double t = 1;
  for (int i = 0; i < n; i++) x[i] = t;
#pragma endscop
  x[0] = t;
}
"""
        message = "t: is declared inside the region and used after it; declare it before"
        assert message in str(only_region(tmp_path, source).error)


def test_extent_assigned_again(tmp_path: Path) -> None:
    source = """void f(int n, int m) {
  double A[n][m];
  m = 3;
#pragma scop
  for (int i = 0; i < n; i++) for (int j = 0; j < m; j++) A[i][j] = 2;
#pragma endscop
}
"""
    error = str(only_region(tmp_path, source).error)
    assert error.endswith("A: its extent m is assigned again after the declaration")


def test_one_bad_region_leaves_the_others(tmp_path: Path) -> None:
    source = """void f(int n, double *x) {
#pragma scop
  x[0] = 1;
#pragma endscop
#pragma scop
  while (1) x[0] = 1;
#pragma endscop
}
void g(double *x) {
#pragma scop
  x[0] = 1;
#pragma endscop
}
"""
    regions = parse(tmp_path, source).regions
    assert [r.name for r in regions] == ["f_1", "f_2", "g"]
    assert [r.error is None for r in regions] == [True, False, True]
    assert [(r.first_line, r.last_line) for r in regions] == [(2, 4), (5, 7), (10, 12)]


PRAGMAS = {
    "void f(void) {\n#pragma scop\n}\n":
        ":2: #pragma scop: has no #pragma endscop after it in its block",
    "void f(void) {\n;\n#pragma endscop\n}\n":
        ":3: #pragma endscop: has no #pragma scop before it in its block",
    "void f(void) {\n#pragma scop\n#pragma scop\n#pragma endscop\n}\n":
        ":3: #pragma scop: stands inside another region",
    "void f(void) {\n#pragma scop\n{\n#pragma endscop\n}\n}\n":
        ":4: #pragma endscop: ends the region in another block than it starts in",
    "#pragma scop\nint x;\n": ":1: #pragma scop: stands outside a function",
    "void f(void) {\n_Pragma(\"scop\")\n;\n#pragma endscop\n}\n":
        ":2: #pragma scop: does not stand on a line of its own in the file "
        "(#line or a macro moved it)",
    "int f(void) { return 1 +; }\n": ":1: syntax: cannot be parsed",
    "#include <nowhere.h>\n": ":1: preprocessing: nowhere.h: No such file or directory",
    "#error stop\n": ":1: preprocessing: #error stop",
}  # fmt: skip


@pytest.mark.parametrize(("source", "message"), [*PRAGMAS.items()])
def test_file_errors(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse(tmp_path, source)
    assert str(caught.value).startswith(f"{tmp_path}/program.c{message}")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=r"none\.c: cannot be read: No such file"):
        parse_file(tmp_path / "none.c")


def test_missing_compiler(tmp_path: Path) -> None:
    with pytest.raises(CompilerNotFound), config.scope(cc="no-such-compiler"):
        parse(tmp_path, "int x;")


def test_options_reach_the_preprocessor(tmp_path: Path) -> None:
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "size.h").write_text("#define M (N + 1)\n")
    source = """#include <size.h>
#ifdef OFF
#error off
#endif
void f(double A[M]) {
#pragma scop
  for (int i = 0; i < M; i++) A[i] = 1;
#pragma endscop
}
"""
    region = only_region(
        tmp_path, source, include=[str(tmp_path / "inc")], defines=["N=4", "OFF"], undefines=["OFF"]
    )
    assert region.scop is not None
    assert [str(e) for e in region.scop.array("A").shape] == ["5"]
    assert region.constants == (("N", 4),)


def test_regions_of_included_files_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "other.h").write_text(
        "static void g(double *x) {\n#pragma scop\nx[0] = 1;\n#pragma endscop\n}\n"
    )
    assert parse(tmp_path, '#include "other.h"\nint y;\n').regions == ()


def test_conditional_compilation(tmp_path: Path) -> None:
    source = """void f(double *x) {
#pragma scop
  x[0] = 1;
#ifdef MORE
  x[1] = 1;
#endif
#pragma endscop
}
"""
    error = str(only_region(tmp_path, source).error)
    assert error.endswith(
        ":4: conditional compilation: the generated code would hold for one of its branches only"
    )


class TestOverlap:
    def pairs(self, tmp_path: Path, header: str, before: str = "", inside: str = "") -> set[str]:
        source = f"""{before}
void f({header}) {{
{inside}
#pragma scop
  for (int i = 0; i < 9; i++) x[i] = y[i];
#pragma endscop
}}
"""
        region = only_region(tmp_path, source)
        assert region.error is None, region.error
        return {"-".join(sorted(p)) for p in region.no_overlap}

    def test_pointers(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "double *x, double *y") == {"x-y"}

    def test_array_parameters_are_pointers(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "double x[9], double y[9]") == {"x-y"}

    def test_restrict(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "double *restrict x, double *y") == set()

    def test_global_arrays(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "void", "double x[9]; static double y[9];") == set()

    def test_global_array_and_pointer(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "double *x", "double y[9];") == {"x-y"}

    def test_local_array_and_parameter(self, tmp_path: Path) -> None:
        assert self.pairs(tmp_path, "double *x", inside="double y[9];") == set()

    def test_local_array_and_local_pointer(self, tmp_path: Path) -> None:
        pairs = self.pairs(tmp_path, "void", inside="double y[9]; double *x = y;")
        assert pairs == {"x-y"}

    def test_global_size_and_pointer(self, tmp_path: Path) -> None:
        source = """int n;
void f(int *x) {
#pragma scop
  for (int i = 0; i < n; i++) x[i] = 1;
#pragma endscop
}
"""
        assert only_region(tmp_path, source).no_overlap == (("x", "n"),)
