"""Accesses of torch functions that relate dimensions one to one: everything but reindexing.

Functions are known by name (``torch.add``, ``Tensor.add`` and ``+`` are one). A rule returns None
for a form of the call that it does not cover; such a call is made on whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perfkit.frontends.fx import Access, aligned, leading, nothing
from perfkit.frontends.fx_call import Arguments, Call, Reading, names, read

Rule = Callable[[Call], Reading | None]


def pointwise(call: Call) -> Reading:
    ndim = max(len(shape) for shape in call.shapes)
    return read(call, [aligned(ndim, len(shape)) for shape in call.shapes])


def first_dims(count: int | None, *, grow: int = 0) -> Rule:
    """The first ``count`` dimensions of the first tensor are kept (negative: all but the last).

    ``None`` keeps all of them. The result has ``grow`` more dimensions. Other tensors are
    parameters.
    """

    def rule(call: Call) -> Reading:
        ndim = len(call.shapes[0])
        kept = ndim if count is None else count if count >= 0 else ndim + count
        others = [nothing(ndim + grow)] * (len(call.shapes) - 1)
        return read(call, [leading(ndim + grow, kept, ndim), *others])

    return rule


def layer_norm(call: Call) -> Reading | None:
    sizes = call.arg(1, "normalized_shape")
    if not isinstance(sizes, (tuple, list)):
        return None
    return first_dims(-len(sizes))(call)


def convolution(call: Call) -> Reading:
    """The batch is kept, and every dimension along which the kernel has one tap and no stride."""
    ndim = len(call.shapes[0])
    kernel = call.shapes[1][2:]
    strides, paddings = call.arg(3, "stride", 1), call.arg(4, "padding", 0)

    def at(setting: Any, d: int) -> Any:
        return setting[d] if isinstance(setting, (tuple, list)) else setting

    kept: list[int | None] = [0, None]
    for d, taps in enumerate(kernel):
        simple = taps == 1 and at(strides, d) == 1 and at(paddings, d) in (0, "valid")
        kept.append(d + 2 if simple else None)
    return read(call, [Access(tuple(kept)), *[nothing(ndim)] * (len(call.shapes) - 1)])


def along(position: int, default: int | None, *, same: bool = False) -> Rule:
    """Mixes one dimension, keeps the others: softmax and cumsum (``same`` size), chunk, split."""

    def rule(call: Call) -> Reading | None:
        dim = call.dim(position, "dim", default)
        ndim = len(call.shapes[0])
        if dim is None or len(call.shapes) != 1:
            return None
        reading = read(call, [Access(tuple(None if d == dim else d for d in range(ndim)))])
        return reading._replace(places=dict(call.places[0])) if same else reading

    return rule


def removed(position: int, default: int | None) -> Rule:
    """Takes one dimension apart: unbind, select."""

    def rule(call: Call) -> Reading | None:
        dim = call.dim(position, "dim", default)
        if dim is None or len(call.shapes) != 1:
            return None
        return read(call, [Access(tuple(d for d in range(len(call.shapes[0])) if d != dim))])

    return rule


def reduction(call: Call) -> Reading | None:
    ndim = len(call.shapes[0])
    dims = call.arg(1, "dim")
    if isinstance(dims, int):
        dims = (dims,)
    if not isinstance(dims, (tuple, list)) or not dims or len(call.shapes) != 1:
        return None
    if call.name in ("var", "std", "var_mean") and len(call.args) > 2:
        return None  # unbiased and keepdim are hard to tell apart
    gone = {d % ndim for d in dims}
    keep = call.kwargs.get("keepdim", len(call.args) > 2 and call.args[-1] is True)
    if keep:
        return read(call, [Access(tuple(None if d in gone else d for d in range(ndim)))])
    return read(call, [Access(tuple(d for d in range(ndim) if d not in gone))])


# -- products -------------------------------------------------------------------------------


def matmul(call: Call) -> Reading | None:
    if len(call.shapes) != 2:
        return None
    left, right = call.shapes if call.name != "__rmatmul__" else call.shapes[::-1]
    if len(left) < 2 or len(right) < 2:
        return None
    ndim = max(len(left), len(right))
    rows, columns = list(aligned(ndim, len(left)).dims), list(aligned(ndim, len(right)).dims)
    rows[-1] = columns[-2] = None
    accesses = [Access(tuple(rows)), Access(tuple(columns))]
    return read(call, accesses if call.name != "__rmatmul__" else accesses[::-1])


def product_added(call: Call) -> Reading | None:
    """addmm, baddbmm: a tensor added to a product."""
    if len(call.shapes) != 3:
        return None
    ndim = len(call.shapes[1])
    rows, columns = list(range(ndim)), list(range(ndim))
    left: list[Any] = [*rows[:-1], None]
    right: list[Any] = [*columns[:-2], None, columns[-1]]
    added = aligned(ndim, len(call.shapes[0]))
    return read(call, [added, Access(tuple(left)), Access(tuple(right))])


def einsum(call: Call) -> Reading | None:
    equation = call.args[0]
    if not isinstance(equation, str) or "." in equation or "->" not in equation:
        return None
    inputs, output = equation.replace(" ", "").split("->")
    terms = inputs.split(",")
    if any(len(set(t)) != len(t) for t in terms) or len(terms) != len(call.shapes):
        return None
    accesses = [Access(tuple(t.index(x) if x in t else None for x in output)) for t in terms]
    # A contraction over an axis (triangle multiplication) has no cheaper way than one whole
    # operand; in one over features (attention scores) another axis should be held.
    summed = {
        name
        for term, held in zip(terms, call.places, strict=True)
        for name, axis in held.items()
        if any(x not in output for x in term[axis.dim : axis.dim + axis.span])
    }
    return read(call, accesses, share=1.0 if summed else 0.25)


def attention(call: Call) -> Reading | None:
    """scaled_dot_product_attention: queries keep their place, keys and values are mixed."""
    query, key, value = call.shapes[:3]
    ndim = len(query)
    if len(key) != ndim or len(value) != ndim:
        return None
    batch: list[Any] = list(range(ndim - 2))
    shared: list[Any] = [d if key[d] == query[d] else None for d in batch]  # grouped heads
    accesses = [
        Access((*batch, ndim - 2, None)),
        Access((*shared, None, None)),
        Access((*shared, None, ndim - 1)),
    ]
    for mask in call.shapes[3:]:
        accesses.append(Access((*aligned(ndim, len(mask)).dims[:-1], None)))
    reading = read(call, accesses)
    if call.arg(5, "is_causal", False):  # what a query reads depends on its position
        rows = {name for name, axis in call.places[0].items() if axis.dim == ndim - 2}
        reading = reading._replace(mixed=reading.mixed | rows)
    return reading


# -- permutations ---------------------------------------------------------------------------


def permutation(call: Call) -> Reading | None:
    ndim = len(call.shapes[0])
    order = list(range(ndim))
    if call.name in ("transpose", "swapaxes", "swapdims"):
        a, b = call.arg(1, "dim0"), call.arg(2, "dim1")
        if not isinstance(a, int) or not isinstance(b, int):
            return None
        order[a], order[b] = order[b], order[a]
    elif call.name == "permute":
        dims = call.kwargs.get("dims", call.args[1:])
        dims = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
        order = [d % ndim for d in dims]
    elif call.name == "movedim":
        source, target = call.arg(1, "source"), call.arg(2, "destination")
        if not isinstance(source, int) or not isinstance(target, int):
            return None
        order.remove(source % ndim)
        order.insert(target % ndim, source % ndim)
    elif call.name in ("t", "mT"):
        order[-1], order[-2] = order[-2], order[-1]

    def rewrite(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, n: int) -> Arguments:
        axis = call.places[0].get(name)
        if axis is None or axis.span == 1:
            return args, kwargs
        last = axis.dim + axis.span  # the dimensions of a span are stored as one
        kept = [d for d in order if d <= axis.dim or d >= last]
        return (args[0], [d if d <= axis.dim else d - axis.span + 1 for d in kept]), {}

    shape = tuple([call.shapes[0][d] for d in order])
    return read(call, [Access(tuple(order))], rewrite)._replace(shape=shape)


def unsqueeze(call: Call) -> Reading | None:
    dim, ndim = call.arg(1, "dim"), len(call.shapes[0])
    if not isinstance(dim, int):
        return None
    order: list[int | None] = list(range(ndim))
    order.insert(dim % (ndim + 1), None)
    return read(call, [Access(tuple(order))])


def stack(call: Call) -> Reading | None:
    dim, ndim = call.arg(1, "dim", 0), len(call.shapes[0])
    order: list[int | None] = list(range(ndim))
    order.insert(dim % (ndim + 1), None)
    return read(call, [Access(tuple(order))] * len(call.shapes))


def multi_head_attention(call: Call) -> Reading | None:
    """F.multi_head_attention_forward on ``[positions, batch, width]``: positions are mixed."""
    if len(call.shapes) < 3 or any(len(shape) != 3 for shape in call.shapes[:3]):
        return None
    masks = (call.kwargs.get("attn_mask"), call.kwargs.get("key_padding_mask"))
    if masks != (None, None) or call.kwargs.get("need_weights", True):
        return None
    query, key = Access((0, 1, None)), Access((None, 1, None))
    return read(call, [query, key, key] + [nothing(3)] * (len(call.shapes) - 3))


# -- the table ------------------------------------------------------------------------------

_POINTWISE = names("""
    add sub mul div true_divide floor_divide remainder fmod pow neg negative positive abs exp exp2
    expm1 log log1p log2 sqrt rsqrt reciprocal square sin cos tan tanh sigmoid erf floor ceil round
    trunc sign clamp clip clamp_min clamp_max maximum minimum where lerp addcmul addcdiv
    masked_fill nan_to_num eq ne lt le gt ge logical_not logical_and logical_or logical_xor
    bitwise_not bitwise_and bitwise_or isnan isinf isfinite
    add_ sub_ mul_ div_ masked_fill_ clamp_ copy_ sigmoid_ tanh_ relu_ neg_ exp_ pow_
    __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ __rmul__ __imul__ __div__ __rdiv__
    __truediv__ __rtruediv__ __itruediv__ __idiv__ __floordiv__ __mod__ __pow__ __rpow__ __ipow__
    __neg__ __pos__ __abs__ __invert__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __and__ __or__
    __xor__
    relu relu6 gelu silu elu selu celu mish softplus softsign leaky_relu hardtanh hardswish
    hardsigmoid logsigmoid tanhshrink
    dropout alpha_dropout
    to float double half bfloat16 int long bool cpu cuda contiguous clone detach
    real imag conj
    zeros_like ones_like empty_like full_like rand_like randn_like bernoulli
""")

_TABLE: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(("linear", "view_as_complex"), first_dims(-1)),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    "group_norm": first_dims(1),
    **dict.fromkeys(
        ("interpolate", "avg_pool1d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d"),
        first_dims(2),
    ),
    "embedding": first_dims(None, grow=1),
    "view_as_real": first_dims(None, grow=1),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod"), along(1, None, same=True)),
    **dict.fromkeys(("glu",), along(1, -1)),
    **dict.fromkeys(("chunk", "tensor_split", "split"), along(2, 0)),
    "unbind": removed(1, 0),
    **dict.fromkeys(
        ("sum", "mean", "amax", "amin", "var", "std", "prod", "logsumexp", "argmax", "argmin",
         "max", "min", "all", "any", "var_mean", "count_nonzero"),
        reduction,
    ),
    **dict.fromkeys(("matmul", "bmm", "mm", "__matmul__", "__rmatmul__"), matmul),
    **dict.fromkeys(("baddbmm", "addmm"), product_added),
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": multi_head_attention,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "permute", "movedim", "t", "mT"),
                    permutation),
    "unsqueeze": unsqueeze,
    "stack": stack,
}  # fmt: skip

SPANNED = frozenset({"reshape", "view", "flatten", "unflatten", "permute", "contiguous", "clone"})
"""Functions that take a tensor with a sharded axis that spans several dimensions."""

RANDOM = frozenset({"dropout", "alpha_dropout", "rand_like", "randn_like", "bernoulli"})
"""Functions that draw random numbers when they are given something to draw for."""

FRESH = frozenset({"conv1d", "conv2d", "conv3d"})
"""Functions whose result has new sequence dimensions, from the third on (patch embedding)."""


def rule_of(name: str) -> Rule | None:
    """The rule of a function, None where there is none."""
    return _TABLE.get(name)
