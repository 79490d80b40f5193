"""The CUDA kernels lane by lane on the CPU against double precision; see emulator.h."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.csrc.native import CSRC, build, compiler, run

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")



# Pairs of rows in a line of banks, a depth beyond the head dimension, whole lines. The other head
# dimensions are variants of these: `python -m tests.csrc` runs all of them.
@pytest.mark.parametrize("dim", [32, 72, 128])
def test_forward_and_backward(dim: int, tmp_path: Path) -> None:
    program = build("attention_emulated.cpp", tmp_path / "emulated", "-O1", f"-DDIM={dim}")
    for direction, trials, seed in (("forward", 12, dim), ("backward", 6, 1000 + dim)):
        done = run(program, trials, seed, direction)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("ok ") == trials


def test_no_access_outside_of_the_tensors(tmp_path: Path) -> None:
    program = build(
        "attention_emulated.cpp", tmp_path / "emulated",
        "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-DDIM=32", "-DONLY_BF16",
    )  # fmt: skip
    done = run(program, 3, 40, "backward")
    assert done.returncode == 0, done.stdout + done.stderr


# Each must be noticed, or the emulator proves nothing.
PLANTS = {
    "the barrier before a tile is read": (
        "forward.h", "    M::sync();\n    if (!fetch(", "    if (!fetch(",
    ),
    "a wait for the newest copies": (
        "backward.h", "M::template wait_async<Shape::kStages - 2>()", "M::template wait_async<1>()",
    ),
    "two quarters of a fragment": ("fragment.h", "lane % 8 + lane / 16 * 8, lane / 8 % 2",
                                   "lane % 16, lane / 16"),
    "the swizzle": ("fragment.h", "& kMask)) *", "& kMask & 0)) *"),
    "the last keys": ("scores.h", "key < keys_left && ", "key <= keys_left && "),
    "the diagonal": ("scores.h", "key <= query + diagonal", "key < query + diagonal"),
    "the rescaling": ("scores.h", "out[j][2 * half + 1] *= shrink;", ""),
    "rows without keys": ("backward.h", "lse == minus_infinity() ? -minus_infinity() : ", ""),
    "the zeros beyond the head dimension": ("tile_io.h", "Tile::kPadChunks != 0", "false"),
    "the heads that share keys": ("backward.h", "first_head + step / per_head", "first_head"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_faults_are_found(plant: str, tmp_path: Path) -> None:
    name, right, wrong = PLANTS[plant]
    shutil.copytree(CSRC / "cuda", tmp_path / "cuda")
    header = tmp_path / "cuda" / name
    text = header.read_text()
    assert right in text
    header.write_text(text.replace(right, wrong))
    # Swizzles are for powers of two, zeros for the other widths.
    dim = 64 if plant == "the swizzle" else 72
    program = build("attention_emulated.cpp", tmp_path / "planted", f"-DDIM={dim}", "-DONLY_BF16",
                    "-Wno-unused-parameter", include=tmp_path)  # fmt: skip
    done = run(program, 30, 0, "backward")
    assert done.returncode == 1, done.stdout
    assert "FAIL" in done.stdout
