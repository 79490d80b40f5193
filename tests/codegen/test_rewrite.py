"""Source to source: what changes in a file, what does not, and that it computes the same."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit.codegen.csource import insertion_point
from perfkit.codegen.openmp import Options, generate_region
from perfkit.codegen.rewrite import (
    MARK,
    ON_FAILURE,
    Replacement,
    constraint,
    is_generated,
    rewrite,
    text,
    write_atomically,
)
from perfkit.errors import SourceFileError
from perfkit.frontends.c import CFile, parse_file
from perfkit.ir.affine import Affine, Constraint

V = Affine.variable


def parsed(folder: Path, source: str, **options: Any) -> CFile:
    path = folder / "program.c"
    path.write_bytes(source.encode("latin-1"))
    return parse_file(path, **options)


def replaced(file: CFile, *, assume: bool = False, body: str | None = None) -> str:
    """Every region regenerated in its own order, or with ``body`` for its loops."""
    made = []
    for region in file.regions:
        assert region.scop is not None, region.error
        g = generate_region(region.scop, region.scop.tree, Options(), on_failure=ON_FAILURE)
        made.append(
            Replacement(region, region.scop, g.prelude, g.body if body is None else body, "none")
        )
    return rewrite(file, made, assume=assume)


def build(folder: Path, source: str, name: str) -> Any:
    path, library = folder / f"{name}.c", folder / f"{name}.so"
    path.write_bytes(source.encode("latin-1"))
    command = ["gcc", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]
    subprocess.run([*command, "-shared", "-fPIC", path, "-o", library, "-lm"], check=True)
    return ctypes.CDLL(str(library))


COPY = """void f(int n, double *x, double *y)
{
#pragma scop
  for (int i = 0; i < n; i++)
    x[i] = 2 * y[i];  // twice
#pragma endscop
}
"""


def doubled(library: Any, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], n: int) -> None:
    library.f(n, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))


class TestText:
    def test_the_rest_of_the_file_is_untouched(self, tmp_path: Path) -> None:
        before = "/* caf\xe9 */\n#define TWICE(a) \\\n  (2 * (a))\n\n\tint unused ;  \n"
        after = "\n#ifdef NEVER\nbroken {{{\n#endif\n// the end, without a newline"
        out = replaced(parsed(tmp_path, before + COPY + after))
        assert out.startswith(before) and out.endswith(after)
        assert "#pragma scop" not in out and MARK in out

    def test_line_endings_are_kept(self, tmp_path: Path) -> None:
        out = replaced(parsed(tmp_path, COPY.replace("\n", "\r\n")))
        assert out.count("\n") == out.count("\r\n")

    def test_nothing_to_replace(self, tmp_path: Path) -> None:
        file = parsed(tmp_path, COPY)
        assert rewrite(file, []) == COPY

    def test_original_lines_are_the_fallback(self, tmp_path: Path) -> None:
        out = replaced(parsed(tmp_path, COPY))
        assert "    x[i] = 2 * y[i];  // twice\n" in out
        assert "if (!perfkit_done) {" in out

    def test_assume_drops_tests_and_fallback(self, tmp_path: Path) -> None:
        out = replaced(parsed(tmp_path, COPY), assume=True)
        assert "perfkit_done" not in out and "// twice" not in out

    def test_is_not_optimized_twice(self, tmp_path: Path) -> None:
        out = replaced(parsed(tmp_path, COPY))
        assert parsed(tmp_path, out).regions == ()

    def test_helpers_are_defined_once(self, tmp_path: Path) -> None:
        source = "".join(
            f"void f{k}(int n, double *x)\n{{\n#pragma scop\n"
            "  for (int i = 0; i < n; i++) x[i] = fmax(x[i], 1.0 * (i / 3));\n"
            "#pragma endscop\n}\n"
            for k in (1, 2)
        )
        out = replaced(parsed(tmp_path, "#include <math.h>\n" + source))
        assert out.count("#include <stdint.h>") == 1
        build(tmp_path, out, "helpers")

    def test_prelude_stands_before_the_function(self, tmp_path: Path) -> None:
        source = "#define _GNU_SOURCE\n#include <stdio.h>\n\nstatic int a;\n\n" + COPY
        out = replaced(parsed(tmp_path, source + "int *keep(void) { return &a; }\n"))
        assert out.index("#include <stdint.h>") > out.index("static int a;")
        assert out.index("#include <stdint.h>") < out.index("void f(")

    def test_clashing_helper_is_renamed(self, tmp_path: Path) -> None:
        file = parsed(tmp_path, "int helper;\n" + COPY)
        (region,) = file.regions
        assert region.scop is not None
        prelude = "static inline int64_t helper(int64_t a) { return a; }\n"
        made = Replacement(region, region.scop, prelude, "x[helper(0)] = y[0];", "none")
        out = rewrite(file, [made])
        assert "perfkit_helper(int64_t a)" in out and "x[perfkit_helper(0)]" in out

    def test_comment_cannot_end_early(self, tmp_path: Path) -> None:
        file = parsed(tmp_path, COPY)
        (region,) = file.regions
        assert region.scop is not None
        out = rewrite(file, [Replacement(region, region.scop, "", "", "a */ b")])
        assert "a * / b" in out


class TestMeaning:
    def test_disjoint_and_overlapping(self, tmp_path: Path) -> None:
        out = replaced(parsed(tmp_path, COPY))
        # A body that shows which of the two ran.
        marked = replaced(parsed(tmp_path, COPY), body="for (int64_t i = 0; i < n; i++) x[i] = -7;")
        for source, disjoint in ((out, 6.0), (marked, -7.0)):
            library = build(tmp_path, source, f"m{int(disjoint)}")
            x, y = np.zeros(4), np.full(4, 3.0)
            doubled(library, x, y, 4)
            assert (x == disjoint).all()
            z = np.array([1.0, 9, 9, 9, 9])
            doubled(library, z[1:], z, 4)
            assert list(z) == [1, 2, 4, 8, 16]

    def test_negative_size_runs_the_original(self, tmp_path: Path) -> None:
        library = build(tmp_path, replaced(parsed(tmp_path, COPY)), "negative")
        x = np.zeros(1)
        doubled(library, x, np.ones(1), -5)
        assert x[0] == 0

    def test_linearised_array(self, tmp_path: Path) -> None:
        source = """void f(int n, double *x, double *y, int ld)
{
#pragma scop
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      x[i * ld + j] = y[j * n + i];
#pragma endscop
}
"""
        out = replaced(parsed(tmp_path, source))
        assert "double (*restrict x)[ld] = (double (*)[ld])perfkit_x;" in out
        results = []
        for name, text_ in (("a", source), ("b", out)):
            library = build(tmp_path, text_, name)
            for ld in (5, 3):  # rows that fit, and rows that overlap: the original
                x, y = np.zeros(25), np.arange(16.0)
                library.f(4, ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ld)
                results.append(x)
        np.testing.assert_array_equal(results[:2], results[2:])

    def test_macros_with_generated_names(self, tmp_path: Path) -> None:
        """Loop names, parameters and types mean nothing else in the generated block."""
        source = "#define i_ 5\n#define fixed 3\n#define int64_t broken\n" + COPY.replace(
            "2 *", "fixed *"
        )
        out = replaced(parsed(tmp_path, source))
        assert '#pragma push_macro("int64_t")' in out
        out = out.replace("#include <stdint.h>", "")  # the program's own macro would break it
        assert "_Static_assert((fixed) == 3" in out

    def test_other_constants_do_not_compile(self, tmp_path: Path) -> None:
        source = """#ifndef N
#define N 8
#endif
void f(double x[N][N])
{
#pragma scop
  for (int i = 0; i < N; i++)
    x[i][i] = 1;
#pragma endscop
}
"""
        out = replaced(parsed(tmp_path, source))
        path = tmp_path / "constants.c"
        path.write_text(out)
        command = ["gcc", "-fsyntax-only", path]
        assert subprocess.run(command).returncode == 0
        done = subprocess.run([*command, "-DN=9"], capture_output=True, text=True)
        assert done.returncode != 0 and "generated this code for N = 8" in done.stderr

    def test_local_array_falls_back_without_memory(self, tmp_path: Path) -> None:
        source = """void f(int n, double *x, double *y)
{
#pragma scop
  double t[n];
  for (int i = 0; i < n; i++)
    t[i] = y[n - 1 - i];
  for (int i = 0; i < n; i++)
    x[i] = t[i];
#pragma endscop
}
"""
        out = replaced(parsed(tmp_path, source), assume=True)
        assert ("perfkit_take" in out) == ("if (!perfkit_done)" in out)
        library = build(tmp_path, out, "local")
        x, y = np.zeros(4), np.arange(4.0)
        doubled(library, x, y, 4)
        assert list(x) == [3, 2, 1, 0]


class TestInsertionPoint:
    @pytest.mark.parametrize(
        ("source", "start"),
        [
            ("int a;\nvoid f(void) {\n@}", "void f"),
            ("int a[] = {1, 2};\nstatic\nvoid f(void)\n{\n if (1) {\n@}}", "static"),
            ("char c = '{', *s = \"{;\";\nvoid f(void) {\n@}", "void f"),
            ("// {\n/* { */\nvoid f(void) {\n@}", "void f"),
            ("#define X {\nvoid f(void) {\n@}", "void f"),
            ("#define X \\\n {\nvoid f(void) {\n@}", "void f"),
            ("#if A\nint f(\n#else\nvoid f(\n#endif\nvoid) {\n@}", "#if A"),
            (
                "#if A\nvoid g(void) {\n#else\nvoid g(int x) {\n#endif\n}\nvoid f(void) {\n@}",
                "void f",
            ),
            ("#if A\nvoid f(void) {\n@}\n#endif", "void f"),
            ("struct s { int x; };\nstruct s f(void) {\n@}", "struct s f"),
        ],
    )
    def test_found(self, source: str, start: str) -> None:
        at = insertion_point(source, source.index("@"))
        assert source[at:].startswith(start)


class TestConditions:
    def test_affine(self) -> None:
        assert text(V("n") * 2 - V("m") - 3) == "-m + 2 * n - 3"
        assert text(Affine()) == "0"
        assert text((V("n") - 1).floordiv(4)) == "((n - 1) / 4 - ((n - 1) % 4 < 0))"

    def test_constraint(self) -> None:
        assert constraint(Constraint(V("n") - V("m") - 1)) == "n >= m + 1"
        assert constraint(Constraint(-V("n") + 100)) == "100 >= n"
        assert constraint(Constraint(V("n"), "eq")) == "n == 0"


class TestWriting:
    def test_mode_and_content(self, tmp_path: Path) -> None:
        like = tmp_path / "like.c"
        like.write_text("x")
        like.chmod(0o640)
        write_atomically(tmp_path / "out.c", "\xe9\n", like)
        assert (tmp_path / "out.c").read_bytes() == b"\xe9\n"
        assert stat.S_IMODE((tmp_path / "out.c").stat().st_mode) == 0o640
        assert sorted(p.name for p in tmp_path.iterdir()) == ["like.c", "out.c"]

    def test_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real.c").write_text("old")
        (tmp_path / "link.c").symlink_to("real.c")
        write_atomically(tmp_path / "link.c", "new")
        assert (tmp_path / "link.c").is_symlink()
        assert (tmp_path / "real.c").read_text() == "new"

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceFileError, match="cannot be written: No such file"):
            write_atomically(tmp_path / "none" / "out.c", "x")

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
    def test_read_only_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(SourceFileError, match="Permission denied"):
            write_atomically(tmp_path / "out.c", "x")
        tmp_path.chmod(0o700)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_disk_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "out.c").write_text("old")

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SourceFileError, match="No space left on device"):
            write_atomically(tmp_path / "out.c", "new")
        assert [p.name for p in tmp_path.iterdir()] == ["out.c"]
        assert (tmp_path / "out.c").read_text() == "old"

    def test_is_generated(self, tmp_path: Path) -> None:
        (tmp_path / "a.c").write_text("int x;")
        assert not is_generated(tmp_path / "a.c") and not is_generated(tmp_path / "none.c")
        (tmp_path / "a.c").write_text(MARK)
        assert is_generated(tmp_path / "a.c")


def test_a_temporary_of_the_function_that_the_new_body_does_not_use(tmp_path: Path) -> None:
    """It is still declared outside of the region, and comments do not count as uses."""
    source = """
void f(int n, double x[n], double y[n])
{
  double t;
#pragma scop
  for (int i = 0; i < n; i++) {
    t = x[i];
    y[i] = t;
  }
#pragma endscop
}
"""
    body = "/* t = x[i] */\nfor (int64_t i = 0; i <= n - 1; ++i)\n  y[i] = x[i];\n"
    build(tmp_path, replaced(parsed(tmp_path, source), assume=True, body=body), "f")


def test_a_variable_first_assigned_inside_a_loop_is_set_before(tmp_path: Path) -> None:
    source = """void f(int n, double *x)
{
  double always, maybe;
#pragma scop
  always = 3.0;
  for (int i = 0; i < n; i++)
    maybe = x[i];
  for (int i = 0; i < n; i++)
    x[i] = always * x[i] + maybe;
#pragma endscop
}
"""
    file = parsed(tmp_path, source)
    assert file.regions[0].overwritten == {"always"}  # without an iteration, maybe keeps its value
    loop = "for (int64_t i = 0; i < n; ++i) {\n  if (i == 0)\n    always = 3.0;\n}\n"
    assert "always = 0;" in replaced(file, body=loop)
    assert "always = 0;" not in replaced(file, body="always = 3.0;\n" + loop)
