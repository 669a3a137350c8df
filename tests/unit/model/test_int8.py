"""Frozen 8-bit layers."""

import gc
import weakref

import torch
from bitsandbytes.nn import Int8Params, Linear8bitLt
from torch import Tensor, nn

from loralab.model.int8 import Int8Linear, dequantize_int8, mend_int8

WEIGHT = [[1.0, -0.5, 0.0, 0.25], [4.0, 2.0, -4.0, 1.0]]
"""Absolute maxima 1 and 4: codes 127, -64 (-63.5 to even), 0, 32 (31.75), and 127, 64, -127, 32."""
CODES = [[127, -64, 0, 32], [127, 64, -127, 32]]


def make_layer(weight: Tensor, bias: bool = False) -> Linear8bitLt:
    layer = Linear8bitLt(weight.shape[1], weight.shape[0], bias=bias, has_fp16_weights=False)
    layer.weight = Int8Params(weight.clone(), requires_grad=False).to("cpu")
    mend_int8(layer)
    return layer


def test_codes_times_scale_over_127() -> None:
    found = dequantize_int8(torch.tensor(CODES, dtype=torch.int8), torch.tensor([1.0, 4.0]), torch.float32)
    expected = torch.tensor(CODES) * torch.tensor([[1 / 127], [4 / 127]])
    torch.testing.assert_close(found, expected)


def test_output_and_gradient_by_hand() -> None:
    layer = make_layer(torch.tensor(WEIGHT))
    assert layer.weight.data.tolist() == CODES
    inputs = torch.tensor([[127.0, 0.0, 0.0, 127.0]], requires_grad=True)
    for training in (True, False):
        inputs.grad = None
        output = layer.train(training)(inputs)
        # 127 x 127/127 + 127 x 32/127, and four times that of the second row.
        torch.testing.assert_close(output, torch.tensor([[159.0, 636.0]]))
        output[0, 1].backward()
        torch.testing.assert_close(inputs.grad, torch.tensor([[127.0, 64.0, -127.0, 32.0]]) * 4 / 127)


def test_the_bias_is_added_in_the_dtype_of_the_input() -> None:
    layer = make_layer(torch.tensor(WEIGHT), bias=True)
    layer.bias.data = torch.tensor([1.0, -1.0])
    output = layer(torch.tensor([[0.0, 0.0, 127.0, 0.0]], dtype=torch.bfloat16))
    assert output.dtype == torch.bfloat16
    assert output.tolist() == [[1.0, -509.0 + 1.0]]  # -508 - 1, where bfloat16 has steps of 2 to even


def test_no_input_is_kept_for_the_backward_pass() -> None:
    layer = make_layer(torch.randn(8, 4, generator=torch.Generator().manual_seed(0))).train()
    start = torch.ones(3, 4, requires_grad=True)
    hidden = start + 1
    alive = weakref.ref(hidden)
    output = layer(hidden)
    del hidden
    gc.collect()
    assert alive() is None
    output.sum().backward()
    assert start.grad is not None
    assert start.grad.abs().sum() > 0


def test_a_weight_that_is_put_in_later_counts() -> None:
    layer = make_layer(torch.tensor(WEIGHT))
    layer(torch.ones(1, 4))
    # What PEFT does when it merges an adapter.
    layer.weight = Int8Params(2 * torch.tensor(WEIGHT), requires_grad=False).to("cpu")
    layer.state.reset_grads()
    torch.testing.assert_close(layer(torch.tensor([[127.0, 0.0, 0.0, 0.0]])), torch.tensor([[254.0, 1016.0]]))


def test_a_layer_that_trains_its_weights_is_left_alone() -> None:
    layer = Linear8bitLt(4, 2, has_fp16_weights=True)
    mend_int8(layer)
    assert type(layer) is Linear8bitLt
    assert type(make_layer(torch.tensor(WEIGHT))) is Int8Linear
    assert isinstance(make_layer(torch.tensor(WEIGHT)), nn.Linear)
