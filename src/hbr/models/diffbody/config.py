"""The configuration of a DiffBody model as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hbr.config import check, check_least
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.config import ScheduleConfig, TextEncoderConfig, UNetConfig
from hbr.models.protocol import Capabilities
from hbr.models.swinir_config import SwinIRConfig

N_PARTS = 5
"""Head; arms and upper torso; lower arms and torso; legs; feet."""


@dataclass(frozen=True, kw_only=True)
class PartNetworkConfig:
    """A network that finds the parts of bodies, on a ResNet; the defaults are ResNet-50's sizes.

    Attributes:
        embedding_size: channels after the first convolution of the ResNet.
        hidden_sizes, depths: channels and blocks of each of its stages.
        layer_type: of its blocks.
        dim: channels of the features.
    """

    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    dim: int = 512

    def __post_init__(self) -> None:
        check_least(self, 1, "embedding_size", "dim")
        ok = len(self.hidden_sizes) == len(self.depths) >= 2
        check(ok, "depths", self.depths, f"{len(self.hidden_sizes)} values, one a stage, 2 or more")


@dataclass(frozen=True, kw_only=True)
class DiffBodyConfig:
    """A DiffBody model; the defaults are the paper's, on Stable Diffusion 2.1-base.

    Attributes:
        stage1: the network that makes I_reg of the photo.
        text: the encoder of the words; None if the model takes none: its prompt is one of zeros.
        parts: the network that finds the parts of bodies, for the attention map and for guidance;
            None if there is none.
        conditions: the maps that guide the control branch besides I_reg.
        negative_prompt: the text that classifier-free guidance leads away from.
        native_size: edge in pixels of the images that the model was trained on; larger photos are
            denoised in overlapping windows of this size.
        name: for display.
    """

    kind: Literal["diffbody"] = "diffbody"
    stage1: SwinIRConfig = field(default_factory=SwinIRConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    text: TextEncoderConfig | None = field(default_factory=TextEncoderConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    parts: PartNetworkConfig | None = field(default_factory=PartNetworkConfig)
    conditions: tuple[Literal["pose", "attention"], ...] = ("pose", "attention")
    negative_prompt: str = ""
    native_size: int = 512
    name: str = "diffbody"

    def __post_init__(self) -> None:
        factor = self.stage1.factor
        check(factor == 1, "stage1.upscale", self.stage1.upscale, "the unshuffle: one size")
        width = self.unet.cross_attention_dim
        if self.text is not None:
            ok = self.text.width == width
            check(ok, "text.width", self.text.width, f"the U-Net's cross_attention_dim {width}")
        ok = self.conditions == tuple(dict.fromkeys(self.conditions))
        check(ok, "conditions", self.conditions, "each at most once")
        ok = self.native_size >= 1 and self.native_size % self.multiple_of == 0
        check(ok, "native_size", self.native_size, f"a multiple of {self.multiple_of}")
        got, own = self.autoencoder.decoding.patch_size, self.autoencoder.patch_size
        check(got == own, "decoder.patch_size", got, f"the encoder's {own}: they share their tiles")

    @property
    def condition_channels(self) -> int:
        """Channels of the control branch's condition: 9 with both maps (I_reg, pose, attention)."""
        z = self.autoencoder.latent_channels
        return z + sum({"pose": z, "attention": 1}[name] for name in self.conditions)

    @property
    def multiple_of(self) -> int:
        """Edges of the input must be multiples of this many pixels."""
        return self.autoencoder.factor * self.unet.factor

    @property
    def capabilities(self) -> Capabilities:
        """What a model of this configuration supports."""
        return Capabilities(
            multiple_of=self.multiple_of,
            min_size=self.multiple_of,
            native_size=self.native_size,
            dtypes=("bfloat16", "float16", "float32"),
            takes_prompt=self.text is not None,
            samples=True,
            maps=self.conditions,
            person_crops=True,
            latent=self.autoencoder.latent,
        )
