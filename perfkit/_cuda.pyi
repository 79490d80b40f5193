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
