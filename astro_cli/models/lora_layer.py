"""A linear layer with LoRA adapters that computes W + scale B A first where that is less work: one matrix product.

    y = (W + scale B A) x + b      instead of      y = W x + b + scale B (A x)

Without gradients the sum is made once for many passes (`lora.merged`). With gradients it is made in every pass and
gradients reach A and B through it.
Dimensions: L row of a batch, I and O width of input and output, R rank.

**Deviations**: peft computes the right-hand form in every pass. The two differ by rounding only.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn
from torch.nn import functional

# Products of a pass with gradients, per row: A x, B (A x) and two for each in the backward pass, against the weight's
# gradient, one more product of the layer's size.
ADAPTER_PRODUCTS, WEIGHT_PRODUCTS = 3, 1


class MergingLinear(LoraLinear):
    """peft's layer, merged where it can be.

    Attributes:
        kept: the sum that passes without gradients multiply with; None where none is kept, and every pass makes its
            own.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kept: torch.Tensor | None = None

    @property
    def base(self) -> nn.Linear:
        return cast(nn.Linear, self.base_layer)

    def act(self, name: str | None) -> None:
        """Let one adapter act, or none. Unlike peft's `set_adapter` it leaves alone which parameters are trained."""
        self._disable_adapters = name is None
        if name is not None:
            self._active_adapter = [name]

    def merges(self) -> bool:
        """Whether weights and adapters are float32 and whole, so that a sum loses nothing; not where they are sharded,
        nor under autocast, which would round the sum.
        """
        weight = self.base.weight
        whole = type(weight) in (torch.Tensor, nn.Parameter) and type(self.base) is nn.Linear
        return whole and weight.dtype == torch.float32 and not torch.is_autocast_enabled(weight.device.type)

    def merged_weight(self, name: str) -> torch.Tensor:
        """(O, I): W + scale B A."""
        a_RI, b_OR = cast(torch.Tensor, self.lora_A[name].weight), cast(torch.Tensor, self.lora_B[name].weight)
        return torch.addmm(self.base.weight, b_OR, a_RI, alpha=self.scaling[name])

    def weight_now(self) -> torch.Tensor | None:
        """The one weight that this layer multiplies with; None where the adapters act beside it."""
        if not torch.is_grad_enabled() and self.kept is not None:
            return self.kept
        if not self.merges():
            return None
        if self.disable_adapters:
            return self.base.weight
        return self.merged_weight(self.active_adapters[0]) if self._worth_it() else None

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        weight = self.weight_now() if not options else None
        return super().forward(x, *args, **options) if weight is None else functional.linear(x, weight, self.base.bias)

    def _worth_it(self) -> bool:
        """Whether one adapter acts, without dropout, and a pass with gradients is less work when it is merged."""
        if len(self.active_adapters) != 1:
            return False
        name, (out, into) = self.active_adapters[0], self.base.weight.shape
        if self.training and not isinstance(self.lora_dropout[name], nn.Identity):
            return False
        beside, inside = ADAPTER_PRODUCTS * self.r[name] * (out + into), WEIGHT_PRODUCTS * out * into
        return not torch.is_grad_enabled() or beside >= inside
