"""What a model can take, as data; loads no torch."""

from dataclasses import dataclass

from hbr.models.config import DAPEConfig, RestorerConfig


@dataclass(frozen=True)
class Capabilities:
    """What a model can take, as data, so that the tiler has no special cases.

    Attributes:
        multiple_of: edges of the input must be multiples of this, in pixels.
        min_size: smallest edge, in pixels.
        native_size: the edge that the model was trained on, in pixels.
        scale: output edge over input edge.
        dtypes: precisions that the model runs in, best first.
        deterministic: the same input always gives the same output.
        takes_prompt: a text may be given in place of the prompt that the image makes.
    """

    multiple_of: int
    min_size: int
    native_size: int
    scale: int = 1
    dtypes: tuple[str, ...] = ("bfloat16", "float32")
    deterministic: bool = True
    takes_prompt: bool = False


def capabilities_of(config: RestorerConfig) -> Capabilities:
    """Sizes and precisions that a model of this configuration takes."""
    multiple = config.multiple_of
    takes_prompt = isinstance(config.prompt, DAPEConfig)
    return Capabilities(multiple, multiple, config.native_size, takes_prompt=takes_prompt)
