"""``perfkit.optimize`` and ``@perfkit.kernel``, as a user meets them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perfkit
from perfkit import config
from perfkit.errors import (
    ArgumentCountError,
    ArgumentTypeError,
    BoundsError,
    CompileError,
    CompilerNotFound,
    DtypeError,
    IllegalSchedule,
    LayoutError,
    OverlapError,
    PerfkitError,
    RankError,
    ReadOnlyError,
    ScriptError,
    SizeError,
    UnsupportedError,
)

Array = np.ndarray[Any, Any]


def scale(a, b, factor):
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            b[i, j] = factor * a[i, j] + b[i, j]


def product(A, B, C):
    for i in range(A.shape[0]):
        for j in range(B.shape[1]):
            for k in range(A.shape[1]):
                C[i, j] += A[i, k] * B[k, j]


def jacobi(T, A, B):
    for _t in range(T):
        for i in range(1, A.shape[0] - 1):
            B[i] = 0.5 * (A[i - 1] + A[i + 1])
        for i in range(1, A.shape[0] - 1):
            A[i] = B[i]


def total(a):
    s = 0.0
    for i in range(a.shape[0]):
        s += a[i]
    return s


def span(a):
    low = a[0]
    high = a[0]
    for i in range(1, a.shape[0]):
        low = min(low, a[i])
        high = max(high, a[i])
    return low, high


def fill(a, start, stop):
    for i in range(start, stop):
        a[i] = i


def copy(a, b):
    for i in range(a.shape[0]):
        b[i] = a[i]


def prefix(a):
    for i in range(1, a.shape[0]):
        a[i] = a[i] + a[i - 1]


def matrix(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape)


# -- calling -----------------------------------------------------------------------------------


def test_a_kernel_serves_every_size_and_keyword_arguments() -> None:
    kernel = perfkit.optimize(scale, matrix(3, 4), matrix(3, 4), 2.0)
    for shape in ((1, 1), (7, 9), (33, 5), (1, 100)):
        a, b = matrix(*shape), matrix(*shape, seed=1)
        expected = 1.5 * a + b
        kernel(factor=1.5, b=b, a=a)
        np.testing.assert_allclose(b, expected, rtol=1e-15)


def test_optimizing_leaves_the_example_alone() -> None:
    a, b = matrix(8, 8), matrix(8, 8)
    before = b.copy()
    perfkit.optimize(scale, a, b=b, factor=2.0, check=True, measure=2)
    np.testing.assert_array_equal(b, before)


def test_what_a_kernel_tells_about_itself() -> None:
    kernel = perfkit.optimize(product, matrix(4, 4), matrix(4, 4), matrix(4, 4), schedule="pluto")
    assert "Parallelize(" in kernel.schedule
    assert "int64_t product_call" in kernel.source
    assert "pluto" in kernel.explain()
    assert perfkit.explain(kernel) == kernel.explain()


@pytest.mark.parametrize("schedule", ["auto", "original", "parallel", "pluto"])
@pytest.mark.parametrize("fp", ["strict", "reassociate"])
def test_named_schedules_agree_with_the_oracle(schedule: str, fp: str) -> None:
    a, b, c = matrix(20, 30), matrix(30, 10, seed=1), matrix(20, 10, seed=2)
    expected = c + a @ b
    perfkit.optimize(product, a, b, c, schedule=schedule, fp=fp, check=True)(a, b, c)
    np.testing.assert_allclose(c, expected, rtol=1e-12)


def test_measured_candidates_are_reported() -> None:
    T, A, B = 3, matrix(50), matrix(50)
    kernel = perfkit.optimize(jacobi, T, A, B, measure=2)
    text = kernel.explain()
    assert text.count(" measured ") >= 3 and "original" in text
    expected_a, expected_b = A.copy(), B.copy()
    jacobi(T, expected_a, expected_b)
    kernel(T, A, B)
    np.testing.assert_allclose(A, expected_a, rtol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same_bits(threads: int) -> None:
    A, B = matrix(301), matrix(301)
    expected_a, expected_b = A.copy(), B.copy()
    perfkit.optimize(jacobi, 4, A, B, schedule="original")(4, expected_a, expected_b)
    perfkit.optimize(jacobi, 4, A, B, schedule="pluto", threads=threads)(4, A, B)
    np.testing.assert_allclose(A, expected_a, rtol=1e-15)


def test_returned_scalars_are_python_numbers() -> None:
    kernel = perfkit.optimize(total, matrix(5))
    result = kernel(np.arange(10.0))
    assert type(result) is float and result == 45.0
    low, high = perfkit.optimize(span, matrix(5))(np.array([3.0, -1.0, 8.0]))
    assert (low, high) == (-1.0, 8.0)


def test_a_constant_result() -> None:
    def one(a):
        return 1.0

    try:
        assert perfkit.optimize(one, matrix(3))(matrix(3)) == 1.0
    except UnsupportedError as error:  # nothing to optimize
        assert "one" in str(error)


# -- the decorator -----------------------------------------------------------------------------


def test_the_decorator_compiles_once_for_each_combination_of_types() -> None:
    decorated = perfkit.kernel(scale)
    for dtype in (np.float64, np.float32, np.float64):
        a, b = np.ones((3, 5), dtype), np.ones((3, 5), dtype)
        decorated(a, b, factor=2.0)
        np.testing.assert_array_equal(b, np.full((3, 5), 3.0, dtype))
    assert decorated.__wrapped__ is scale and decorated.__name__ == "scale"
    first = decorated.specialize(np.ones((2, 2)), np.ones((2, 2)), factor=1.0)
    assert decorated.specialize(np.ones((9, 2)), np.ones((9, 2)), factor=3.0) is first
    large = decorated.specialize(np.ones((900, 900)), np.ones((900, 900)), factor=3.0)
    assert large is not first  # chosen for its size, good for any
    large(np.ones((3, 5)), b := np.ones((3, 5)), factor=2.0)
    np.testing.assert_array_equal(b, np.full((3, 5), 3.0))


def test_the_decorator_takes_options() -> None:
    @perfkit.kernel(schedule="original", fp="reassociate")
    def twice(a):
        for i in range(a.shape[0]):
            a[i] = 2 * a[i]

    a = np.arange(5)
    twice(a)
    np.testing.assert_array_equal(a, 2 * np.arange(5))


# -- scripts -----------------------------------------------------------------------------------


def test_a_script_as_text() -> None:
    script = "Tile(i=4, j=4)  # small\nParallelize(i_t)\nVectorize(j, 4)\n"
    a, b = matrix(9, 14), matrix(9, 14, seed=1)
    expected = 2 * a + b
    kernel = perfkit.optimize(scale, a, b, 2.0, schedule=script)
    kernel(a, b, 2.0)
    np.testing.assert_allclose(b, expected, rtol=1e-15)
    assert kernel.schedule.splitlines() == ["Tile(i=4, j=4)", "Parallelize(i_t)", "Vectorize(j, 4)"]
    again = perfkit.optimize(scale, a, b, 2.0, schedule=kernel.schedule)
    assert again.source == kernel.source


def test_an_illegal_script_names_the_dependence() -> None:
    with pytest.raises(IllegalSchedule, match=r"Parallelize\(i\).*S0 -> S0 \(flow on a\)"):
        perfkit.optimize(prefix, matrix(5), schedule="Parallelize(i)")


def test_an_unknown_loop_gets_the_nearest_name() -> None:
    with pytest.raises(ScriptError, match=r"no loop is named 'ii'.*did you mean i\?"):
        perfkit.optimize(prefix, matrix(5), schedule="Parallelize(ii)")


def test_an_unknown_transform_gets_the_nearest_name() -> None:
    with pytest.raises(ScriptError, match="Paralelize.*Parallelize"):
        perfkit.optimize(prefix, matrix(5), schedule="Paralelize(i)")


# -- sizes -------------------------------------------------------------------------------------


def test_zero_and_negative_trip_counts() -> None:
    kernel = perfkit.optimize(fill, np.zeros(5), 0, 5)
    for start, stop in ((3, 3), (4, 1), (5, 0), (2, 4)):
        a, expected = np.full(5, -1.0), np.full(5, -1.0)
        kernel(a, start, stop)
        fill(expected, start, stop)
        np.testing.assert_array_equal(a, expected)


def test_negative_sizes_are_refused_in_words() -> None:
    """A parameter that bounds loops or subscripts counts something."""
    kernel = perfkit.optimize(jacobi, 2, matrix(5), matrix(5))
    with pytest.raises(BoundsError, match="jacobi with T = -1.*needs .*T >= 0"):
        kernel(-1, matrix(5), matrix(5))


@pytest.mark.parametrize("schedule", ["original", "parallel", "pluto", "auto"])
def test_arrays_of_size_zero(schedule: str) -> None:
    kernel = perfkit.optimize(product, matrix(2, 2), matrix(2, 2), matrix(2, 2), schedule=schedule)
    for n, m, k in ((0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)):
        a, b, c = np.ones((n, k)), np.ones((k, m)), np.ones((n, m))
        kernel(a, b, c)
        np.testing.assert_array_equal(c, np.ones((n, m)))
    few = perfkit.optimize(jacobi, 1, matrix(9), matrix(9), schedule=schedule)
    for size in range(3):
        few(3, np.ones(size), np.ones(size))


def test_offsets_beyond_two_billion() -> None:
    """Index arithmetic has 64 bits: the bytes exist, and 2**31 elements lie before them."""

    def last(a, n):
        for i in range(n - 3, n):
            a[i] = i % 100

    size = 2**31 + 10
    try:
        a = np.zeros(size, np.int8)  # untouched pages take no memory
    except MemoryError:
        pytest.skip("no address space for 2 GiB")
    perfkit.optimize(last, np.zeros(4, np.int8), 4, schedule="original")(a, size)
    np.testing.assert_array_equal(a[-4:], [0, (size - 3) % 100, (size - 2) % 100, (size - 1) % 100])


def test_products_of_sizes_beyond_two_billion() -> None:
    def corner(a):
        for i in range(a.shape[0] - 1, a.shape[0]):
            for j in range(a.shape[1] - 2, a.shape[1]):
                a[i, j] = 7

    try:
        a = np.zeros((2**16, 2**15 + 1), np.int8)
    except MemoryError:
        pytest.skip("no address space for 2 GiB")
    perfkit.optimize(corner, np.zeros((3, 3), np.int8))(a)
    assert list(a[-1, -3:]) == [0, 7, 7]


def test_sizes_that_leave_the_array_are_refused() -> None:
    kernel = perfkit.optimize(fill, np.zeros(5), 0, 5)
    a = np.zeros(5)
    with pytest.raises(BoundsError, match="fill with .*stop = 6"):
        kernel(a, 0, 6)
    with pytest.raises(BoundsError):
        kernel(a, -1, 3)
    np.testing.assert_array_equal(a, np.zeros(5))


def test_sizes_that_are_no_numbers_or_too_large() -> None:
    kernel = perfkit.optimize(fill, np.zeros(5), 0, 5)
    with pytest.raises(ArgumentTypeError, match="'stop'.*whole number"):
        kernel(np.zeros(5), 0, 2.5)
    with pytest.raises(SizeError, match="stop"):
        kernel(np.zeros(5), 0, 2**63)


# -- arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: np.ones((6, 8))[:, ::2], LayoutError, "C-contiguous"),
        (lambda: np.ones((6, 4))[::-1], LayoutError, "negative strides"),
        (lambda: np.asfortranarray(np.ones((6, 4))), LayoutError, "ascontiguousarray"),
        (lambda: np.ones(24), RankError, "1 dimensions.*expects 2"),
        (lambda: np.ones((6, 4), np.float32), DtypeError, "float32.*float64"),
        (lambda: np.ones((6, 4), ">f8"), DtypeError, "byte order"),
        (lambda: [[1.0]], ArgumentTypeError, "list"),
        (lambda: 3.0, ArgumentTypeError, "float, but an array"),
        (lambda: None, ArgumentTypeError, "NoneType"),
    ],
)
def test_arrays_that_do_not_fit(make: Any, error: type[PerfkitError], words: str) -> None:
    a = np.ones((6, 4))
    kernel = perfkit.optimize(scale, a, a, 1.0)
    with pytest.raises(error, match=f"'b'.*{words}|{words}.*'b'"):
        kernel(a, make(), 1.0)


def test_an_array_that_is_too_small() -> None:
    kernel = perfkit.optimize(scale, np.ones((6, 4)), np.ones((6, 4)), 1.0)
    kernel(np.ones((6, 4)), np.ones((7, 5)), 1.0)  # a larger one is fine, as in Python
    with pytest.raises(BoundsError, match=r"b\[i, j\].*out of bounds"):
        kernel(np.ones((6, 4)), np.ones((6, 3)), 1.0)


def test_arrays_of_constant_and_equal_sizes() -> None:
    def square(a, b):
        for i in range(len(a)):
            for j in range(len(a)):
                b[j, i] = a[i, j]

    kernel = perfkit.optimize(square, np.ones((4, 4)), np.ones((4, 4)))
    with pytest.raises(BoundsError, match="square with"):
        kernel(np.ones((4, 3)), np.ones((4, 4)))


def test_read_only_arrays() -> None:
    a, b = np.ones((2, 2)), np.ones((2, 2))
    kernel = perfkit.optimize(scale, a, b, 1.0)
    a.flags.writeable = False
    kernel(a, b, 1.0)  # only read
    np.testing.assert_array_equal(b, np.full((2, 2), 2.0))
    b.flags.writeable = False
    with pytest.raises(ReadOnlyError, match="'b'.*read-only"):
        kernel(a, b, 1.0)


def test_overlapping_arrays() -> None:
    memory = np.arange(20.0)
    kernel = perfkit.optimize(copy, np.ones(5), np.ones(5))
    with pytest.raises(OverlapError, match="'b'.*shares memory with argument 'a'"):
        kernel(memory[:10], memory[5:15])
    kernel(memory[:10], memory[10:])
    np.testing.assert_array_equal(memory[10:], memory[:10])


def test_the_number_of_arguments() -> None:
    kernel = perfkit.optimize(copy, np.ones(5), np.ones(5))
    for args, keywords in (((np.ones(5),), {}), ((np.ones(5),) * 3, {}), ((), {"c": np.ones(2)})):
        with pytest.raises(ArgumentCountError, match="copy"):
            kernel(*args, **keywords)


def test_names_that_mean_something_in_c() -> None:
    """Keywords, helpers of the generator, and a function called as one of the C library."""

    def exp(double, register, floor_div, max_int64, n_1):
        for int_ in range(n_1):
            for main in range(int_, min(n_1, int_ + 3)):
                double[main] = double[main] + register[main // 2] * floor_div[int_]

    n = 7
    args = [matrix(n, seed=k) for k in range(4)]
    expected = [a.copy() for a in args]
    exp(*expected, n)
    perfkit.optimize(exp, *args, n, check=True)(*args, n)
    np.testing.assert_allclose(args[0], expected[0], rtol=1e-14)


def test_letters_beyond_ascii() -> None:
    def weighted(α, b, β):
        for i in range(b.shape[0]):
            b[i] = α[i] * β

    with pytest.raises(UnsupportedError, match="α.*rename it"):  # noqa: RUF001
        perfkit.optimize(weighted, matrix(6), matrix(6), 2.0)


# -- what is refused while compiling -----------------------------------------------------------


def test_unsupported_functions_are_refused_with_their_place() -> None:
    def search(a, x):
        i = 0
        while a[i] != x:
            i += 1
        return i

    with pytest.raises(UnsupportedError, match=r"test_api\.py:\d+: while"):
        perfkit.optimize(search, np.ones(3), 1.0)


def test_a_broken_compiler_is_reported() -> None:
    with (
        config.scope(cc="/bin/false"),
        pytest.raises((CompileError, CompilerNotFound), match="/bin/false"),
    ):
        perfkit.optimize(copy, np.ones(3), np.ones(3))


def test_a_missing_compiler_is_reported() -> None:
    with (
        config.scope(cc="no-such-compiler"),
        pytest.raises(CompilerNotFound, match="no-such-compiler"),
    ):
        perfkit.optimize(copy, np.ones(3), np.ones(3))


# -- threads and processes ---------------------------------------------------------------------


def test_calls_from_several_python_threads() -> None:
    kernel = perfkit.optimize(product, matrix(4, 4), matrix(4, 4), matrix(4, 4))
    wrong: list[int] = []

    def work(seed: int) -> None:
        n = 20 + seed
        a, b, c = matrix(n, n, seed=seed), matrix(n, n, seed=seed + 1), np.zeros((n, n))
        for _ in range(20):
            c[:] = 0
            kernel(a, b, c)
            if not np.allclose(c, a @ b):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _compile_and_run(seed: int, folder: str) -> float:
    os.environ["PERFKIT_CACHE_DIR"] = folder
    a, b = matrix(11, 13, seed=seed), np.zeros((11, 13))
    perfkit.optimize(scale, a, b, 2.0)(a, b, 2.0)
    return float(np.abs(b - 2.0 * a).max())


def test_processes_that_compile_the_same_kernel_at_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(3) as pool:
        jobs = [(k, str(tmp_path / "cache")) for k in range(6)]
        assert max(pool.starmap(_compile_and_run, jobs)) == 0.0


def _in_child(kernel: Any, pipe: Any) -> None:
    a, b, c = matrix(40, 40), matrix(40, 40, seed=1), np.zeros((40, 40))
    kernel(a, b, c)
    pipe.send(bool(np.allclose(c, a @ b)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_kernel_after_fork() -> None:
    """The threads of the parent's OpenMP runtime do not exist in a child."""
    kernel = perfkit.optimize(
        product, matrix(4, 4), matrix(4, 4), matrix(4, 4), schedule="Parallelize(i)", threads=2
    )
    a, c = matrix(40, 40), np.zeros((40, 40))
    kernel(a, a, c)  # the parent's threads start
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_in_child, args=(kernel, theirs))
    child.start()
    answered = ours.poll(60)
    if not answered:
        child.kill()
    child.join()
    assert answered, "a kernel called in a forked child hangs"
    assert ours.recv()
