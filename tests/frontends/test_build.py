"""Lowering: what a region means, against direct execution, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfkit.codegen import interpret
from perfkit.errors import UnsupportedError
from perfkit.frontends.build import build
from perfkit.frontends.syntax import Block, Declare, Region, Stmt, Value, Variable
from perfkit.ir.expr import AffineValue, Load, Select, walk
from perfkit.ir.scop import Scop
from perfkit.ir.tree import loops
from tests.frontends.reference import (
    HERE,
    array,
    at,
    execute,
    let,
    loop,
    num,
    op,
    region,
    size,
    var,
    when,
)

N = size("n")
n, m, i, j, k = map(var, "nmijk")


def agree(program: Region, sizes: dict[str, int], **arrays: np.ndarray[Any, Any]) -> Scop:
    """Build the region, and check that it does what direct execution does."""
    scop = build(program)
    expected = {name: value.copy() for name, value in arrays.items()}
    execute(program, {**sizes, **expected})
    interpret.run(scop, sizes, arrays, {})
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    return scop


def refuse(program: Region, match: str) -> None:
    with pytest.raises(UnsupportedError, match=match) as error:
        build(program)
    assert error.value.location.file == "test.c"


def one(*body: Stmt, extent: Value | int = 40) -> Region:
    return region([N, array("A", extent)], *body)


def ones() -> np.ndarray[Any, Any]:
    return np.arange(40.0)


# -- loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, -1, -3])
@pytest.mark.parametrize("sizes", [0, 1, 7])
def test_steps(step: int, sizes: int) -> None:
    first, last = (2, op("add", n, 3)) if step > 0 else (op("add", n, 3), 2)
    body = let(at("A", i), op("add", at("A", op("add", i, 1)), num(1.0), dtype="float64"))
    scop = agree(one(loop("i", first, last, body, step=step)), {"n": sizes}, A=ones())
    (tree,) = loops(scop.tree)
    assert str(tree.expression("S0")) == ("i" if step > 0 else "-i")


def test_strided_loop_from_a_maximum_counts_iterations() -> None:
    first = op("max", op("sub", n, 4), 1)
    program = one(loop("i", first, 20, let(at("A", i), num(1.0)), step=3))
    for value in (0, 3, 9, 30):
        agree(program, {"n": value}, A=ones())


def test_bounds_with_min_and_max() -> None:
    low, high = op("min", op("sub", n, 2), 5), op("max", op("add", n, 1), 3)
    program = one(loop("i", op("max", low, 0), op("min", high, 20), let(at("A", i), num(2.0))))
    for value in (0, 4, 9, 30):
        agree(program, {"n": value}, A=ones())


def test_union_of_bounds_has_disjoint_pieces() -> None:
    program = one(loop("i", op("min", n, 3), 9, let(at("A", i), num(2.0))))
    scop = agree(program, {"n": 5}, A=ones())
    (statement,) = scop.statements
    assert len(statement.domain.pieces) == 2
    for value in range(12):
        point = {"n": 5, "i": value}
        assert sum(all(c.holds(point) for c in p) for p in statement.domain.pieces) <= 1


def test_loop_names_are_unique_and_iterators_keep_theirs() -> None:
    body = loop("i", 0, n, let(at("A", i), num(1.0)))
    scop = agree(one(body, body, loop("i", 0, 2, body)), {"n": 6}, A=ones())
    assert [x.name for x in loops(scop.tree)] == ["i", "i_2", "i_3", "i_4"]
    assert [s.iterators for s in scop.statements] == [("i",), ("i",), ("i", "i_2")]


def test_loop_named_like_an_operator_of_isl() -> None:
    scop = agree(one(loop("mod", 0, n, let(at("A", var("mod")), num(1.0)))), {"n": 4}, A=ones())
    assert scop.statements[0].iterators == ("mod_",)


def test_array_named_like_an_operator_of_isl_is_refused() -> None:
    refuse(region([N, array("floor", n)], let(at("floor", 0), num(1.0))), "rename")


def test_data_dependent_bound_is_refused() -> None:
    bound = op("cast", at("A", 0))
    refuse(one(loop("i", 0, bound, let(at("A", i), num(1.0)))), "range is not affine")


def test_product_of_variables_is_refused() -> None:
    refuse(one(loop("i", 0, n, let(at("A", op("mul", i, n)), num(1.0)))), "multiplies")
    refuse(one(loop("i", 0, op("mul", n, n), let(at("A", i), num(1.0)))), "multiplies")


def test_assigned_loop_variable_is_refused() -> None:
    refuse(one(loop("i", 0, n, let(i, num(3)))), "loop variable must not be assigned")


def test_bound_that_the_loop_changes_is_refused() -> None:
    body = (Declare("k", "int64", (), HERE), let(k, num(5)))
    refuse(
        one(*body, loop("i", 0, k, let(k, num(3)), let(at("A", i), num(1.0)))),
        "changes its bound 'k'",
    )


# -- subscripts and forwarded variables ------------------------------------------------------


def test_truncating_division_splits_on_the_sign() -> None:
    for divide, value in (("tdiv", 4), ("tmod", 5), ("floordiv", 4), ("mod", 5)):
        index = op("add", op(divide, i, 3), value)
        program = one(loop("i", -6, n, let(at("A", index), op("cast", i, dtype="float64"))))
        scop = agree(program, {"n": 8}, A=ones())
        assert len(scop.statements) == (2 if divide in ("tdiv", "tmod") else 1)
    natural = one(loop("i", 0, n, let(at("A", op("tdiv", i, 3)), num(1.0))))
    assert len(agree(natural, {"n": 8}, A=ones()).statements) == 1


def test_clamped_subscript() -> None:
    index = op("min", op("max", op("sub", i, 2), 0), op("sub", n, 1))
    program = one(loop("i", 0, op("add", n, 4), let(at("A", op("add", i, 9)), at("A", index))))
    assert len(agree(program, {"n": 7}, A=ones()).statements) >= 3


def test_index_variable_is_forwarded_and_disappears() -> None:
    body = [
        Declare("k", "int64", (), HERE),
        let(k, op("add", i, 1)),
        let(at("A", k), op("cast", k, dtype="float64")),
        let(k, op("add", k, 2)),
        let(at("A", k), num(5.0)),
    ]
    scop = agree(one(loop("i", 0, n, *body)), {"n": 9}, A=ones())
    assert [str(s.write) for s in scop.statements] == ["A[i + 1]", "A[i + 3]"]
    assert [a.name for a in scop.arrays] == ["A"]


def test_value_from_another_iteration_is_not_forwarded() -> None:
    body = loop("i", 0, n, let(at("A", k), num(1.0)), let(k, i))
    refuse(one(Declare("k", "int64", (), HERE), let(k, num(0)), body), "not affine here")
    after = let(at("A", k), num(1.0))
    refuse(
        one(Declare("k", "int64", (), HERE), let(k, num(0)), loop("i", 0, n, let(k, i)), after),
        "not affine here",
    )


def test_conditional_index_variable_is_not_forwarded() -> None:
    body = [
        Declare("k", "int64", (), HERE),
        let(k, num(0)),
        when(op("gt", n, 3), [let(k, num(1))]),
        let(at("A", k), num(1.0)),
    ]
    refuse(one(*body), "not affine here")


def test_subscript_from_data_is_refused() -> None:
    refuse(one(let(at("A", op("cast", at("A", 0))), num(1.0))), "subscript of A")


def test_wrong_number_of_subscripts_is_refused() -> None:
    refuse(one(let(at("A", 0, 1), num(1.0))), "has 1 dimensions, but 2")


def test_iterators_as_data() -> None:
    value = op("cast", op("sub", op("mul", i, 2), n), dtype="float64")
    scop = agree(one(loop("i", 0, n, let(at("A", i), value))), {"n": 9}, A=ones())
    assert any(isinstance(e, AffineValue) for e in walk(scop.statements[0].value))


def test_narrow_integers_wrap() -> None:
    value = op(
        "cast",
        op("add", op("cast", i, dtype="uint8"), num(250, "uint8"), dtype="uint8"),
        dtype="float64",
    )
    scop = build(one(loop("i", 0, n, let(at("A", i), value))))
    result = ones()
    interpret.run(scop, {"n": 9}, {"A": result}, {})
    assert result[:10].tolist() == [250, 251, 252, 253, 254, 255, 0, 1, 2, 3]


# -- conditions ------------------------------------------------------------------------------


def test_affine_condition_splits_the_domain() -> None:
    test = op("lor", op("lt", i, 3), op("land", op("gt", i, 5), op("ne", op("mod", i, 2), 0)))
    body = when(test, [let(at("A", i), num(1.0))], [let(at("A", op("add", i, 10)), num(2.0))])
    scop = agree(one(loop("i", 0, n, body)), {"n": 12}, A=ones())
    assert len(scop.statements) == 2
    assert not any(isinstance(e, Select) for s in scop.statements for e in walk(s.value))


def test_condition_on_data_selects() -> None:
    body = when(op("gt", at("A", i), num(4.0)), [let(at("A", i), num(0.0))])
    scop = agree(one(loop("i", 0, op("sub", n, 1), body), extent=n), {"n": 12}, A=ones()[:12])
    assert isinstance(scop.statements[0].value, Select)


def test_condition_that_the_branch_changes_is_saved_first() -> None:
    body = when(
        op("gt", at("A", i), num(4.0)),
        [let(at("A", i), num(0.0)), let(at("B", i), num(1.0))],
        [let(at("B", i), num(2.0))],
    )
    program = region([N, array("A", n), array("B", n)], loop("i", 0, op("sub", n, 1), body))
    scop = agree(program, {"n": 10}, A=np.arange(10.0), B=np.zeros(10))
    assert [a.name for a in scop.arrays] == ["A", "B", "cond"]
    assert scop.array("cond").local


def test_nested_conditions_on_data_and_sizes() -> None:
    inner = when(
        op("lt", at("A", i), num(8.0)), [let(at("B", i), num(1.0))], [let(at("B", i), at("A", i))]
    )
    body = when(
        op("land", op("gt", i, 2), op("gt", at("A", i), num(4.0))),
        [inner, let(at("A", i), num(0.0))],
        [let(at("B", i), num(3.0))],
    )
    program = region([N, array("A", n), array("B", n)], loop("i", 0, op("sub", n, 1), body))
    agree(program, {"n": 12}, A=np.arange(12.0), B=np.zeros(12))


def test_conditional_access_outside_is_refused_unless_calls_are_checked() -> None:
    body = when(op("gt", at("A", i), num(4.0)), [let(at("B", i), num(0.0))])
    program = region(
        [N, size("m"), array("A", n), array("B", m)], loop("i", 0, op("sub", n, 1), body)
    )
    refuse(program, "not known to be within")
    assert len(build(program, checked_calls=True).statements) == 1
    always = when(op("gt", at("A", i), num(4.0)), [let(at("A", op("add", i, 1)), num(0.0))])
    program = region([N, array("A", n)], loop("i", 0, op("sub", n, 1), always))
    with pytest.raises(UnsupportedError, match="not known to be within"):
        build(program, checked_calls=True)


def test_integer_division_under_a_condition_is_refused() -> None:
    value = op("tdiv", num(7), at("X", i, dtype="int64"))
    test = op("ne", at("X", i, dtype="int64"), 0)
    program = region(
        [N, array("X", n, dtype="int64")],
        loop("i", 0, op("sub", n, 1), when(test, [let(at("X", i, dtype="int64"), value)])),
    )
    refuse(program, "divisor may be zero")


def test_affine_choice_in_a_value_splits_the_statement() -> None:
    value = op(
        "select", op("gt", i, 0), at("A", op("sub", i, 1)), num(9.0, "float64"), dtype="float64"
    )
    scop = agree(one(loop("i", 0, n, let(at("A", i), value))), {"n": 9}, A=ones())
    assert len(scop.statements) == 2


# -- variables -------------------------------------------------------------------------------


def test_shadowed_declarations_get_their_own_arrays() -> None:
    t = var("t", "float64")
    inner = Block((Declare("t", "float64", (), HERE), let(t, num(7.0)), let(at("A", i), t)))
    body = [
        Declare("t", "float64", (), HERE),
        let(t, at("A", i)),
        inner,
        let(at("A", op("add", i, 20)), t),
    ]
    scop = agree(one(loop("i", 0, n, *body)), {"n": 9}, A=ones())
    assert [a.name for a in scop.arrays] == ["A", "t", "t_2"]


def test_uninitialised_read_is_refused_with_its_line() -> None:
    t = var("t", "float64")
    program = one(
        Declare("t", "float64", (), HERE),
        loop("i", 1, n, let(at("A", i), t, line=42), let(t, at("A", 0))),
    )
    refuse(program, r"test\.c:42: t: is read before")


def test_first_iteration_may_initialise() -> None:
    t = var("t", "float64")
    first = when(op("eq", i, 0), [let(t, at("A", 3))])
    body = loop("i", 0, n, first, let(at("A", i), t))
    agree(one(Declare("t", "float64", (), HERE), body), {"n": 7}, A=ones())


def test_variable_set_in_both_branches() -> None:
    t = var("t", "float64")
    test = op("gt", at("A", i), num(4.0))
    body = [when(test, [let(t, num(1.0))], [let(t, num(2.0))]), let(at("A", i), t)]
    program = one(Declare("t", "float64", (), HERE), loop("i", 0, n, *body))
    scop = agree(program, {"n": 9}, A=ones())
    assert len(scop.statements) == 2


def test_variable_set_under_one_condition_on_data_is_cleared_first() -> None:
    t = var("t", "float64")
    test = op("gt", at("A", i), num(4.0))
    body = [when(test, [let(t, num(1.0)), let(at("A", op("add", i, 12)), t)])]
    program = one(Declare("t", "float64", (), HERE), loop("i", 0, op("min", n, 20), *body))
    agree(program, {"n": 9}, A=ones())


def test_local_array() -> None:
    body = [
        Declare("T", "float64", (n,), HERE),
        loop("i", 0, op("sub", n, 1), let(at("T", i), at("A", i))),
        loop("i", 0, op("sub", n, 1), let(at("A", i), at("T", op("sub", op("sub", n, 1), i)))),
    ]
    scop = agree(one(*body), {"n": 9}, A=ones())
    assert scop.array("T").local
    refuse(
        one(loop("i", 0, n, Declare("T", "float64", (i,), HERE), let(at("A", i), num(1.0)))),
        "changes from iteration",
    )


def test_scalar_places_of_the_caller() -> None:
    s = var("s", "float64")
    program = region(
        [N, array("A", n), Variable("s", "variable", "float64")],
        loop("i", 0, op("sub", n, 1), let(s, op("add", s, at("A", i), dtype="float64"))),
    )
    total = np.array(1.0)
    interpret.run(build(program), {"n": 4}, {"A": np.arange(4.0), "s": total}, {})
    assert total[()] == 7.0


def test_read_only_names_are_refused_as_targets() -> None:
    refuse(one(let(n, num(3))), "read only")
    scalar = region([Variable("x", "scalar", "float64")], let(var("x", "float64"), num(3.0)))
    refuse(scalar, "read only")


def test_assumptions_narrow_the_context() -> None:
    body = let(at("A", op("sub", n, 2)), num(1.0))
    scop = build(region([N, array("A", n)], body, assumptions=(op("ge", n, 2),)))
    assert scop.context.contains({"n": 2}) and not scop.context.contains({"n": 1})
    with pytest.raises(UnsupportedError, match="not affine in the sizes"):
        build(region([N, array("A", n)], body, assumptions=(op("gt", at("A", 0), num(0.0)),)))


def test_empty_region_is_refused() -> None:
    refuse(one(loop("i", 3, 1, let(at("A", i), num(1.0)))), "no assignment")


def test_unknown_function_is_refused() -> None:
    call = op("call", at("A", 0), dtype="float64")
    refuse(one(let(at("A", 0), type(call)("float64", "call", call.args, "rand"))), "rand")


# -- random programs -------------------------------------------------------------------------

LEAF = st.one_of(st.integers(-4, 4).map(num), st.sampled_from([n, i, j]))


def _index(children: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    constant = st.integers(1, 4).map(num)
    return st.one_of(
        st.builds(op, st.sampled_from(["add", "sub", "min", "max"]), children, children),
        st.builds(
            op, st.sampled_from(["mul", "tdiv", "tmod", "floordiv", "mod"]), children, constant
        ),
    )


INDEX = st.recursive(LEAF, _index, max_leaves=3)
CELL = INDEX.map(lambda e: at("A", op("mod", e, 7), dtype="int64"))
COMPARISON = st.builds(op, st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]), INDEX, INDEX)
ON_DATA = st.builds(lambda c, v: op("gt", c, num(v)), CELL, st.integers(0, 900))
TEST = st.recursive(
    st.one_of(COMPARISON, COMPARISON, ON_DATA),
    lambda c: st.one_of(
        st.builds(op, st.sampled_from(["land", "lor"]), c, c), st.builds(op, st.just("not"), c)
    ),
    max_leaves=3,
)
ASSIGN = st.builds(
    lambda target, a, b: let(target, op("mod", op("add", op("mul", a, 3), b), 1009)),
    CELL,
    CELL,
    INDEX,
)
STATEMENT = st.recursive(
    ASSIGN,
    lambda c: st.builds(when, TEST, st.lists(c, min_size=1, max_size=2), st.lists(c, max_size=2)),
    max_leaves=3,
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(STATEMENT, min_size=1, max_size=2),
    st.lists(STATEMENT, max_size=1),
    st.sampled_from([1, 2, -1, -2]),
    INDEX,
    st.integers(0, 6),
)
def test_random_programs(
    inner: list[Stmt], outer: list[Stmt], step: int, bound: Value, value: int
) -> None:
    limit = op("sub", op("mod", bound, 5), 1)
    first, last = (num(-2), limit) if step > 0 else (limit, num(-2))
    nest = loop("i", -1, 2, loop("j", first, last, *inner, step=step))
    tail = loop("i", -1, 1, loop("j", 0, 1, *outer, let(at("A", 0, dtype="int64"), j)))
    nest = loop("j", 0, 0, nest)  # "j" in the bound is this outer one
    nest = loop("i", 1, 1, nest)
    program = region([N, array("A", 7, dtype="int64")], nest, tail)
    try:
        build(program)
    except UnsupportedError as error:
        assert "case distinctions" in str(error)
        return
    agree(program, {"n": value}, A=np.arange(7, dtype=np.int64) * 100)


def test_loads_of_own_target_are_written_out() -> None:
    value = op("add", at("A", i), num(1.0, "float64"), dtype="float64")
    scop = build(one(loop("i", 0, 9, let(at("A", i), value))))
    assert any(isinstance(e, Load) for e in walk(scop.statements[0].value))
