"""Named masks: shared while what they depend on stays, never longer."""

from __future__ import annotations

from itertools import count

from perfkit.codegen.triton_masks import name_masks


def named(text: str) -> list[str]:
    numbers = count(1)
    return name_masks(text.strip("\n").splitlines(), lambda: f"mask{next(numbers)}")


MASK = "(i < n) & (j < m)"


def test_a_shared_mask_is_written_once() -> None:
    lines = named(f"""
a = tl.load(A + i, mask={MASK}, other=0)
b = tl.where({MASK}, a, 0)
tl.store(B + i, b, mask={MASK})
""")
    assert lines == [
        f"mask1 = {MASK}",
        "a = tl.load(A + i, mask=mask1, other=0)",
        "b = tl.where(mask1, a, 0)",
        "tl.store(B + i, b, mask=mask1)",
    ]


def test_single_and_simple_masks_stay_where_they_are() -> None:
    text = f"""a = tl.load(A, mask={MASK}, other=0)
b = tl.load(B, mask=(i < n), other=0)
c = tl.load(C, mask=(i < n), other=0)"""
    assert named(text) == text.splitlines()


def test_a_new_value_of_a_variable_ends_it() -> None:
    lines = named(f"""
a = tl.load(A, mask={MASK}, other=0)
b = tl.load(B, mask={MASK}, other=0)
j = 64 + tl.arange(0, 64)
c = tl.load(C, mask={MASK}, other=0)
d = tl.load(D, mask={MASK}, other=0)
""")
    assert [line.split(" ")[0] for line in lines] == ["mask1", "a", "b", "j", "mask2", "c", "d"]


def test_a_loop_that_moves_a_variable_ends_it_before_its_first_line() -> None:
    lines = named(f"""
a = tl.load(A, mask={MASK}, other=0)
for k in range(0, 8):
    b = tl.load(B, mask={MASK}, other=0)
    j = j + 64
c = tl.load(C, mask={MASK}, other=0)
""")
    assert lines == [line for line in lines if not line.strip().startswith("mask")]


def test_loops_share_what_stands_around_them_but_not_the_other_way_round() -> None:
    lines = named(f"""
a = tl.load(A, mask={MASK}, other=0)
for k in range(0, 8):
    b = tl.load(B, mask={MASK}, other=0)
""")
    assert "    b = tl.load(B, mask=mask1, other=0)" in lines
    apart = named(f"""
for k in range(0, 8):
    b = tl.load(B, mask={MASK}, other=0)
c = tl.load(C, mask={MASK}, other=0)
""")
    assert not any("mask1" in line for line in apart)
