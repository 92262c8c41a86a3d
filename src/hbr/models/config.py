"""The configuration of a one-step model, from nano to Stable Diffusion 2.1, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hbr.config import check, check_least
from hbr.models.autoencoder_config import AutoencoderConfig, check_widths
from hbr.models.protocol import COLOR_FIXES, Capabilities, ColorFix


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A diffusers `UNet2DConditionModel`; the defaults are Stable Diffusion 2.1-base's.

    Attributes:
        block_out_channels: width of each level; every level but the last halves the size.
        attention: which levels have transformer blocks; one entry per level.
        attention_head_dim: number of heads of each level (diffusers' historical name).
        layers_per_block: residual blocks per level (the up blocks have one more).
        cross_attention_dim: width of the prompt p.
        norm_num_groups: groups of every GroupNorm.
        use_linear_projection: linear layers instead of 1×1 convolutions around the transformer
            blocks.
    """

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    attention_head_dim: tuple[int, ...] = (5, 10, 20, 20)
    layers_per_block: int = 2
    cross_attention_dim: int = 1024
    norm_num_groups: int = 32
    use_linear_projection: bool = True

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        check_widths(self.block_out_channels, self.norm_num_groups)
        for name in ("attention", "attention_head_dim"):
            got = getattr(self, name)
            check(len(got) == levels, name, got, f"{levels} values, one a level")
        check_least(self, 1, "layers_per_block")
        for width, heads in zip(self.block_out_channels, self.attention_head_dim, strict=True):
            ok = heads >= 1 and width % heads == 0
            check(ok, "attention_head_dim", heads, f"a divisor of the width {width}")

    @property
    def factor(self) -> int:
        """Latent cells along one edge of a cell of the lowest level."""
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """The Swin transformer of RAM; the defaults are the published RAM's Swin-L.

    Attributes:
        image_size: edge in pixels of the square that the input is resized to.
        embed_dim: width of the first level; it doubles at each further one.
        depths, num_heads: blocks and heads of each level.
        window_size: edge of an attention window, in patches of 4×4 pixels.
        proj_dim: width after the linear projection (`image_proj`).
    """

    image_size: int = 384
    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    window_size: int = 12
    proj_dim: int = 512

    def __post_init__(self) -> None:
        check_least(self, 1, "embed_dim", "window_size", "proj_dim")
        check(len(self.depths) >= 1, "depths", self.depths, "one number a level")
        smallest = 4 * 2 ** (len(self.depths) - 1)
        ok = self.image_size >= smallest and self.image_size % smallest == 0
        check(ok, "image_size", self.image_size, f"a multiple of {smallest}")
        ok = len(self.num_heads) == len(self.depths)
        check(ok, "num_heads", self.num_heads, f"{len(self.depths)} values, one a level")
        for level, heads in enumerate(self.num_heads):
            width = self.embed_dim * 2**level
            ok = heads >= 1 and width % heads == 0
            check(ok, "num_heads", heads, f"a divisor of the width {width}")

    @property
    def width(self) -> int:
        """Width of the tokens before the projection."""
        return int(self.embed_dim * 2 ** (len(self.depths) - 1))


@dataclass(frozen=True, kw_only=True)
class HFIEConfig:
    """The high-fidelity image embedder of OSDHuman: image tokens, then learnable queries.

    The paper gives the 77×1024 output and the attention; heads, norm and dropout are our choice.

    Attributes:
        encoder: the image encoder under the queries.
        n_queries, width: shape of the prompt.
        heads: heads of the attention of the queries over the tokens.
        norm: "layer" puts a LayerNorm on the output, "none" does not.
        dropout: of the attention weights, in training.
    """

    kind: Literal["hfie"] = "hfie"
    encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    n_queries: int = 77
    width: int = 1024
    heads: int = 8
    norm: Literal["layer", "none"] = "layer"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_least(self, 1, "n_queries")
        ok = self.heads >= 1 and self.width % self.heads == 0
        check(ok, "heads", self.heads, f"a divisor of the width {self.width}")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")


@dataclass(frozen=True)
class TextPromptConfig:
    """A fixed prompt of one text, stored in the checkpoint; a space is the null prompt.

    Attributes:
        n_queries, width: shape of the prompt.
        text: what is embedded. A training embeds it with the text encoder of its base; without one,
            only a blank text is possible, whose prompt is zero.
    """

    kind: Literal["text"] = "text"
    n_queries: int = 77
    width: int = 1024
    text: str = " "

    def __post_init__(self) -> None:
        check_least(self, 1, "n_queries", "width")


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """RAM's tagger; the defaults are the published RAM's.

    Attributes:
        encoder: its image encoder.
        n_tags: number of tags.
        descriptions: texts for each tag: 1 in RAM; 51 in RAM++, which weighs them by the image.
        width, mlp_width, heads, layers: of the layers in which the tags attend to the image.
    """

    encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    n_tags: int = 4585
    width: int = 768
    mlp_width: int = 3072
    heads: int = 4
    layers: int = 2
    descriptions: int = 1

    def __post_init__(self) -> None:
        check_least(self, 1, "n_tags", "mlp_width", "layers", "descriptions")
        ok = self.heads >= 1 and self.width % self.heads == 0
        check(ok, "heads", self.heads, f"a divisor of the width {self.width}")


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A CLIP text encoder; the defaults are Stable Diffusion 2.1-base's.

    Attributes:
        vocabulary: number of known tokens.
        length: tokens of every text; longer ones are truncated.
        width, mlp_width, heads, layers: of its transformer.
        activation: between the two linear layers of each MLP, by its name in transformers.
    """

    vocabulary: int = 49408
    length: int = 77
    width: int = 1024
    mlp_width: int = 4096
    heads: int = 16
    layers: int = 23
    activation: Literal["gelu", "quick_gelu"] = "gelu"

    def __post_init__(self) -> None:
        check_least(self, 1, "vocabulary", "length", "mlp_width", "layers")
        ok = self.heads >= 1 and self.width % self.heads == 0
        check(ok, "heads", self.heads, f"a divisor of the width {self.width}")


@dataclass(frozen=True)
class DAPEConfig:
    """The tags of the image as a text, or a text written by the user: OSEDiff's prompt.

    Everything is frozen: a tagger (RAM, with or without SeeSR's DAPE merged in) and the text
    encoder of Stable Diffusion.

    Attributes:
        tagger: tags the image.
        text: embeds the tags.
        template: the text; `{tags}` stands for the tags, joined by ", ". OSEDiff was trained with
            the tags alone; its published inference code uses "{tags}, ,".
    """

    kind: Literal["dape"] = "dape"
    tagger: TaggerConfig = field(default_factory=TaggerConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    template: str = "{tags}"

    def __post_init__(self) -> None:
        check("{tags}" in self.template, "template", self.template, "a text with {tags} in it")

    @property
    def n_queries(self) -> int:
        """Tokens of the prompt."""
        return self.text.length

    @property
    def width(self) -> int:
        """Width of the prompt."""
        return self.text.width


PromptConfig = HFIEConfig | TextPromptConfig | DAPEConfig


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule; the defaults are Stable Diffusion 2.1-base's (DESIGN §3).

    Attributes:
        beta_start, beta_end: `scaled_linear`: linear in √β between these.
        steps: number of timesteps.
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012
    steps: int = 1000

    def __post_init__(self) -> None:
        ok = 0 < self.beta_start <= self.beta_end < 1
        check(ok, "beta_start", self.beta_start, f"above 0 and at most beta_end {self.beta_end}")
        check_least(self, 1, "steps")


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters on frozen weights.

    Attributes:
        rank: inner width of an adapter.
        alpha: the adapter is scaled by `alpha / rank`; OSEDiff's code uses 8 with rank 4.
    """

    rank: int = 4
    alpha: float = 8.0

    def __post_init__(self) -> None:
        check_least(self, 1, "rank")
        check(self.alpha > 0, "alpha", self.alpha, "above 0")


@dataclass(frozen=True)
class RefinerConfig:
    """A convolutional network on pixels after the decoder (`hbr.models.refiner`).

    Attributes:
        width: number of channels.
        blocks: residual blocks of two convolutions.
        patch_size: factor of the pixel-unshuffle before it and of the pixel-shuffle after it.
        sees_input: whether it sees the input of the model beside the decoded image: what latents
            cannot hold of a photo that is hardly damaged is still there.
    """

    width: int = 48
    blocks: int = 4
    patch_size: int = 2
    sees_input: bool = False

    def __post_init__(self) -> None:
        check_least(self, 1, "width", "blocks")
        check(self.patch_size in (1, 2, 4), "patch_size", self.patch_size, "1, 2 or 4")


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """A one-step model; `RestorerConfig()` is OSDHuman on Stable Diffusion 2.1-base.

    Attributes:
        prompt: what tells the U-Net what to restore.
        timestep: T_L, from which the one step starts.
        native_size: edge in pixels of the images that the model was trained on.
        refiner: a network on the pixels that the own decoder makes; the published models have none.
        color: the colour fix of its results; "none" suits a model that was trained to give the
            colours of the undamaged photo and keeps them elsewhere.
        name: for display.
    """

    # not a field: files of one-step models do not name their kind
    kind: ClassVar[str] = "one-step"

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    prompt: PromptConfig = field(default_factory=HFIEConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    timestep: int = 999
    native_size: int = 512
    refiner: RefinerConfig | None = None
    color: ColorFix = "wavelet"
    name: str = "one-step"

    def __post_init__(self) -> None:
        ok = 0 <= self.timestep < self.schedule.steps
        check(ok, "timestep", self.timestep, f"in [0, {self.schedule.steps})")
        ok = self.prompt.width == self.unet.cross_attention_dim
        expected = f"the U-Net's cross_attention_dim {self.unet.cross_attention_dim}"
        check(ok, "prompt.width", self.prompt.width, expected)
        ok = self.native_size % self.multiple_of == 0
        check(ok, "native_size", self.native_size, f"a multiple of {self.multiple_of}")
        ok = self.color in COLOR_FIXES
        check(ok, "color", self.color, f"one of {', '.join(COLOR_FIXES)}")
        if self.refiner is not None:
            own = self.autoencoder.decoder is None
            check(own, "refiner", self.refiner, "null with a `decoder`, which makes the image")
            ok = self.multiple_of % self.refiner.patch_size == 0
            expected = f"a divisor of {self.multiple_of}, the multiple of the model's sizes"
            check(ok, "refiner.patch_size", self.refiner.patch_size, expected)

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
            takes_prompt=isinstance(self.prompt, DAPEConfig),
            color=self.color,
            person_crops=self.autoencoder.mid_attention,
            latent=self.autoencoder.latent,
        )
