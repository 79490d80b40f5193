"""``perfkit optimize`` on C files, as a user runs it."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfkit.cli import main

SOURCE = """/* matrix product */
void product(int n, double A[n][n], double B[n][n], double C[n][n])
{
#pragma scop
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++)
      for (int k = 0; k < n; k++)
        C[i][j] += A[i][k] * B[k][j];
#pragma endscop
}
"""
REFUSED = (
    SOURCE
    + """
void wait(int *flag)
{
#pragma scop
  while (*flag) *flag -= 1;
#pragma endscop
}
"""
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "product.c").write_text(SOURCE)
    return tmp_path


def product(source: Path, n: int = 20) -> np.ndarray[Any, Any]:
    library = source.with_suffix(".so").resolve()
    flags = ["-O1", "-fopenmp", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run(["gcc", *flags, "-march=native", source, "-o", library, "-lm"], check=True)
    random = np.random.default_rng(0)
    a, b = random.uniform(-1, 1, (2, n, n))
    c = np.ones((n, n))
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, c)]
    ctypes.CDLL(str(library)).product(n, *pointers)
    return c


@pytest.mark.parametrize("schedule", ["parallel", "pluto"])
def test_default_output_computes_the_same(schedule: str, capsys: Any) -> None:
    assert main(["optimize", "product.c", "--schedule", schedule, "--check"]) == 0
    out = capsys.readouterr().out
    assert "product.c:4: product: optimized" in out and "wrote product.opt.c" in out
    np.testing.assert_array_equal(product(Path("product.opt.c")), product(Path("product.c")))


def test_original_schedule_changes_nothing(capsys: Any) -> None:
    assert main(["optimize", "product.c", "--schedule", "original", "-o", "same.c"]) == 0
    assert Path("same.c").read_text() == SOURCE
    assert "product: kept" in capsys.readouterr().out


def test_script_from_a_file(capsys: Any) -> None:
    Path("order.txt").write_text("Tile(i=8, j=8)\nParallelize(i_t)\n")
    assert main(["optimize", "product.c", "--schedule", "order.txt", "--explain"]) == 0
    assert "Tile(i=8, j=8)" in capsys.readouterr().out
    assert "Parallelize(i_t)" in Path("product.opt.c").read_text()


def test_unknown_schedule(capsys: Any) -> None:
    assert main(["optimize", "product.c", "--schedule", "fastest"]) == 1
    assert "--schedule fastest: neither auto, original" in capsys.readouterr().err
    assert not Path("product.opt.c").exists()


def test_refused_region_is_left_with_one_message(capsys: Any) -> None:
    Path("two.c").write_text(REFUSED)
    assert main(["optimize", "two.c", "--schedule", "parallel"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["two.c:15: while: only counted for loops can be handled"]
    assert Path("two.opt.c").read_text().count("#pragma scop") == 1


def test_strict_makes_it_an_error() -> None:
    Path("two.c").write_text(REFUSED)
    assert main(["optimize", "two.c", "--schedule", "parallel", "--strict"]) == 1
    assert not Path("two.opt.c").exists()


def test_measuring_needs_sizes(capsys: Any) -> None:
    assert main(["optimize", "product.c", "--measure", "1"]) == 1
    err = capsys.readouterr().err
    assert "product: measuring needs values for n: add --size n=1000" in err


def test_measuring(capsys: Any) -> None:
    command = ["optimize", "product.c", "--measure", "1", "--size", "n=40", "--explain"]
    assert main(command) == 0
    assert "original" in capsys.readouterr().out


def test_bad_size(capsys: Any) -> None:
    assert main(["optimize", "product.c", "--measure", "1", "--size", "n"]) == 1
    assert "--size n: write it as NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["-3", "x", "1.5"])
def test_bad_measure(capsys: Any, count: str) -> None:
    with pytest.raises(SystemExit):
        main(["optimize", "product.c", "--measure", count])
    assert f"'{count}' is not a whole number" in capsys.readouterr().err


def test_excluded_size(capsys: Any) -> None:
    assert main(["optimize", "product.c", "--measure", "1", "--size", "n=-3"]) == 1
    assert "the program is not for sizes n=-3" in capsys.readouterr().err


def test_report(capsys: Any) -> None:
    command = ["optimize", "product.c", "--schedule", "parallel", "--report", "json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == "product.opt.c"
    (region,) = report["regions"]
    assert (region["region"], region["line"], region["status"]) == ("product", 4, "optimized")
    assert "Parallelize" in region["script"]


class TestOutput:
    def test_users_file_is_kept(self, capsys: Any) -> None:
        Path("product.opt.c").write_text("int mine;")
        assert main(["optimize", "product.c", "--schedule", "parallel"]) == 1
        assert "exists and was not written by perfkit" in capsys.readouterr().err
        assert Path("product.opt.c").read_text() == "int mine;"
        assert main(["optimize", "product.c", "--schedule", "parallel", "--force"]) == 0
        assert main(["optimize", "product.c", "--schedule", "parallel"]) == 0

    def test_input_is_kept(self, capsys: Any) -> None:
        assert main(["optimize", "product.c", "-o", "product.c"]) == 1
        assert "is the input; use --in-place" in capsys.readouterr().err

    def test_in_place(self) -> None:
        assert main(["optimize", "product.c", "--schedule", "parallel", "--in-place"]) == 0
        assert "perfkit: region product" in Path("product.c").read_text()

    def test_folder(self) -> None:
        Path("out").mkdir()
        assert main(["optimize", "product.c", "--schedule", "parallel", "-o", "out"]) == 0
        assert Path("out/product.opt.c").exists()

    def test_missing_folder(self, capsys: Any) -> None:
        assert main(["optimize", "product.c", "--schedule", "parallel", "-o", "no/x.c"]) == 1
        assert "no/x.c: cannot be written" in capsys.readouterr().err


def test_missing_file(capsys: Any) -> None:
    assert main(["optimize", "none.c"]) == 1
    assert "none.c: cannot be read: No such file" in capsys.readouterr().err


def test_python_file_is_told_where_to_go(capsys: Any) -> None:
    assert main(["optimize", "module.py:function"]) == 1
    assert "decorate the function with @perfkit.kernel" in capsys.readouterr().err


def test_file_without_regions(capsys: Any) -> None:
    Path("none.c").write_text("int x;\n")
    assert main(["optimize", "none.c"]) == 0
    assert "no #pragma scop is compiled in this file" in capsys.readouterr().err
    assert Path("none.opt.c").read_text() == "int x;\n"


def test_constants_of_the_preprocessor_give_sizes() -> None:
    source = SOURCE.replace("double A[n][n], double B[n][n], double C[n][n]",
                            "double A[N][N], double B[N][N], double C[N][N]")  # fmt: skip
    Path("constant.c").write_text(source)
    command = ["optimize", "constant.c", "-D", "N=24", "--measure", "1", "-o", "out.c"]
    assert main(command) == 0
    flags = ["gcc", "-fsyntax-only", "-DN=24"]
    subprocess.run([*flags, "out.c"], check=True)
