def attention_forward(
    device: int,
    stream: int,
    sizes: list[int],
    scale: float,
    causal: bool,
    tensors: list[list[int]],
) -> None: ...
def attention_backward(
    device: int,
    stream: int,
    sizes: list[int],
    scale: float,
    causal: bool,
    tensors: list[list[int]],
) -> None: ...
def switch_push(
    device: int,
    stream: int,
    bases: list[int],
    positions: list[int],
    rows: list[int],
    sizes: list[int],
    scale: float,
    causal: bool,
    timeout_ns: int,
    here: list[list[list[int]]],
) -> None: ...

switch_collect = switch_push
switch_stage = switch_push
switch_pull = switch_push
