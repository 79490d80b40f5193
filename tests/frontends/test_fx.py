"""Places of axes through views and accesses: closed forms against their definitions in isl."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import islpy as isl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.frontends import fx_access, fx_views
from perfkit.frontends.fx import (
    Access,
    Axis,
    aligned,
    fused,
    is_whole,
    leading,
    through_view,
    view_relation,
    whole,
)
from perfkit.frontends.fx_call import Call, Reading, read

CTX = isl.Context()


@dataclass
class Shape:
    """Stands for a tensor."""

    shape: tuple[int, ...]
    places: dict[str, Axis] = field(default_factory=dict)


def call(name: str, *args: object, **kwargs: object) -> Call:
    return Call(name, args, kwargs, lambda x: isinstance(x, Shape), lambda x: x.places)


def reading(name: str, *args: object, **kwargs: object) -> Reading:
    rule = fx_access.rule_of(name) or fx_views.rule_of(name)
    assert rule is not None, name
    found = rule(call(name, *args, **kwargs))
    assert found is not None, name
    return found


# -- views ----------------------------------------------------------------------------------


def agrees(axis: Axis, shape: list[int], found: Axis, view: list[int]) -> bool:
    """Whether both places say the same of every element: the definition of a view's place."""
    before = view_relation(CTX, shape, view).reverse().apply_range(axis.relation(CTX, shape))
    return before.is_equal(found.relation(CTX, view))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_place_found_in_a_view_is_the_axis(data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))

    def grouped() -> list[int]:
        cuts = data.draw(st.lists(st.booleans(), min_size=len(factors), max_size=len(factors)))
        sizes = [1]
        for n, cut in zip(factors, cuts, strict=True):
            if cut:
                sizes.append(n)
            else:
                sizes[-1] *= n
        return sizes

    shape, view = grouped(), grouped()
    dim = data.draw(st.integers(0, len(shape) - 1))
    length = data.draw(st.sampled_from([n for n in range(1, 65) if shape[dim] % n == 0]))
    inner = data.draw(st.sampled_from([n for n in range(1, 65) if shape[dim] // length % n == 0]))
    axis = Axis(dim, shape[dim] // length // inner, length, inner)
    found = through_view(axis, shape, view)
    if found is not None:
        assert agrees(axis, shape, found, view)
        assert found.length == length


@pytest.mark.parametrize(
    ("axis", "shape", "view", "expected"),
    [
        (whole(1, 17), [2, 17, 6, 8], [34, 6, 8], Axis(0, 2, 17, 1)),
        (Axis(0, 2, 17, 1), [34, 6, 8], [2, 17, 6, 8], whole(1, 17)),
        (whole(1, 6), [2, 6, 17, 8], [2, 102, 8], Axis(1, 1, 6, 17)),
        (whole(1, 51), [2, 51, 8], [2, 3, 17, 8], Axis(1, 1, 51, 1, span=2)),
        (Axis(1, 1, 51, 1, span=2), [2, 3, 17, 8], [102, 8], Axis(0, 2, 51, 1)),
        (Axis(1, 1, 6, 5, start=1), [2, 31, 8], [2, 31, 2, 4], Axis(1, 1, 6, 5, start=1)),
        (Axis(1, 1, 6, 5, start=1), [2, 31, 8], [62, 8], None),
        (whole(1, 6), [2, 6, 4], [2, 4, 6], Axis(1, 1, 6, 4, span=2)),
    ],
)
def test_places_through_views_of_models(
    axis: Axis, shape: list[int], view: list[int], expected: Axis | None
) -> None:
    found = through_view(axis, shape, view)
    assert found == expected
    if found is not None and not axis.start:
        assert agrees(axis, shape, found, view)


def test_shape_with_a_part_of_an_axis() -> None:
    assert fused([2, 31, 8], Axis(1, 1, 6, 5, start=1), 2) == [2, 11, 8]
    assert fused([2, 3, 17, 8], Axis(1, 1, 51, 1, span=2), 26) == [2, 26, 8]
    assert is_whole(whole(0, 3), [3, 4])
    assert not is_whole(Axis(0, 1, 3, 2), [6])


# -- accesses -------------------------------------------------------------------------------


def carries(access: Access, shape: list[int], operand: list[int], axis: Axis, found: Axis) -> bool:
    """Whether every element read lies where the output says: the relation is the identity."""
    reads = access.relation(CTX, shape, operand).apply_range(axis.relation(CTX, operand))
    return reads.is_equal(found.relation(CTX, shape))


@pytest.mark.parametrize(
    ("access", "shape", "operand"),
    [
        (aligned(3, 2), [5, 3, 4], [3, 4]),
        (aligned(3, 3), [5, 3, 4], [5, 3, 4]),
        (leading(3, 2, 3), [5, 3, 7], [5, 3, 4]),
        (Access((2, 0, 1)), [4, 5, 3], [5, 3, 4]),
        (Access((0, None, 2)), [5, 6, 4], [5, 3, 4]),
    ],
)
def test_an_axis_is_carried_where_the_access_is_the_identity_on_it(
    access: Access, shape: list[int], operand: list[int]
) -> None:
    for dim, length in enumerate(operand):
        axis = whole(dim, length)
        found = access.carry(axis)
        if found is None:
            assert dim not in access.dims
        else:
            assert carries(access, shape, operand, axis, found)
            assert access.back(found) == axis


def test_a_span_is_carried_only_as_it_is() -> None:
    axis = Axis(1, 1, 6, 1, span=2)
    assert Access((0, 3, 1, 2)).carry(axis) == axis.moved(2)
    assert Access((0, 2, 1, 3)).carry(axis) is None


# -- rules ----------------------------------------------------------------------------------


def test_attention_keeps_the_place_of_queries_and_mixes_their_axis() -> None:
    places = {"B": whole(0, 2), "T": whole(2, 17)}
    q = Shape((2, 4, 17, 8), places)
    found = reading("scaled_dot_product_attention", q, q, q)
    assert found.places == places
    assert found.mixed == {"T"}
    text = Shape((2, 4, 5, 8), {"B": whole(0, 2), "L": whole(2, 5)})
    found = reading("scaled_dot_product_attention", q, text, text)
    assert found.places == places
    assert found.mixed == {"L"}


def test_causal_attention_mixes_the_queries_too() -> None:
    q, k = Shape((2, 4, 17, 8), {"T": whole(2, 17)}), Shape((2, 4, 5, 8))
    assert reading("scaled_dot_product_attention", q, k, k, is_causal=True).mixed == {"T"}


def test_scores_written_by_hand_mix_like_attention() -> None:
    q = Shape((2, 4, 17, 8), {"B": whole(0, 2), "T": whole(2, 17)})
    k = Shape((2, 4, 8, 17), {"B": whole(0, 2), "T": whole(3, 17)})
    found = reading("matmul", q, k)
    assert found.places == {"B": whole(0, 2), "T": whole(2, 17)}
    assert found.mixed == {"T"}


def test_a_small_operand_with_the_axis_elsewhere_is_taken_whole() -> None:
    lines = Shape((1, 9, 9, 64), {"i": whole(1, 9)})
    bias = Shape((1, 1, 9, 1), {"i": whole(2, 9)})
    assert reading("add", lines, bias).mixed == frozenset()
    assert reading("add", lines, Shape((1, 1, 9, 64), {"i": whole(2, 9)})).mixed == frozenset()
    big = Shape((1, 9, 9, 64), {"i": whole(2, 9)})
    assert reading("add", lines, big).mixed == {"i"}


def test_a_slice_keeps_what_it_holds_whole() -> None:
    x = Shape((2, 31, 8), {"B": whole(0, 2), "S": Axis(1, 1, 6, 5, start=1)})
    tokens = reading("__getitem__", x, (slice(None), slice(1, None)))
    assert tokens.places["S"] == Axis(1, 1, 6, 5)
    assert not tokens.mixed
    first = reading("__getitem__", x, (slice(None), 0, slice(None)))
    assert first.places == {"B": whole(0, 2)}
    assert not first.mixed
    assert reading("__getitem__", x, (slice(None), 3)).mixed == {"S"}
    assert reading("__getitem__", x, (slice(None), slice(None, None, 2))).mixed == {"S"}


def test_a_class_token_in_front_moves_an_axis() -> None:
    x = Shape((2, 30, 8), {"B": whole(0, 2), "S": Axis(1, 1, 6, 5)})
    found = reading("cat", [Shape((2, 1, 8)), x], 1)
    assert found.places == {"B": whole(0, 2), "S": Axis(1, 1, 6, 5, start=1)}
    assert not found.mixed
    assert reading("cat", [x, x], 1).mixed == {"S"}


def test_repetition() -> None:
    x = Shape((3, 8), {"T": whole(0, 3)})
    assert reading("repeat", x, 2, 1).places == {"T": Axis(0, 2, 3, 1)}
    assert reading("repeat_interleave", x, 5, dim=0).places == {"T": Axis(0, 1, 3, 5)}


def test_reductions_mix_what_they_sum() -> None:
    x = Shape((2, 5, 8), {"B": whole(0, 2), "T": whole(1, 5)})
    found = reading("mean", x, 1)
    assert found.places == {"B": whole(0, 2)}
    assert found.mixed == {"T"}
    assert reading("mean", x, -1, True).places == x.places


def test_a_patch_embedding_keeps_dimensions_with_one_tap() -> None:
    x = Shape((2, 4, 5, 6, 6), {"T": whole(2, 5), "H": whole(3, 6)})
    found = reading("conv3d", x, Shape((8, 4, 1, 2, 2)), None, (1, 2, 2))
    assert found.places == {"T": whole(2, 5)}
    assert found.mixed == {"H"}


def test_forms_without_a_rule() -> None:
    x = Shape((2, 5), {"T": whole(1, 5)})
    for name, args in [("softmax", (x,)), ("mean", (x,)), ("__getitem__", (x, [0, 1]))]:
        rule = fx_access.rule_of(name) or fx_views.rule_of(name)
        assert rule is not None and rule(call(name, *args)) is None
    assert fx_access.rule_of("sort") is None


def test_rebuilt_arguments_keep_their_structure() -> None:
    x, y = Shape((2,)), Shape((3,))
    made = call("cat", [x, y], 0, other=x)
    assert made.tensors == [x, y, x]
    assert made.rebuilt(["a", "b", "c"]) == ((["a", "b"], 0), {"other": "c"})


def test_operands_that_agree_share_one_place() -> None:
    x = Shape((2, 5, 8), {"T": whole(1, 5)})
    found = read(call("add", x, x), [aligned(3, 3)] * 2)
    assert found.places == x.places
    assert math.prod(x.shape) == 80
    assert not found.mixed
