"""Texts as prompts: the CLIP text encoder of Stable Diffusion, and the fixed prompt of one text.

Shapes: b batch, q tokens (77), d width.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from einops import repeat
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from hbr.config import ConfigError, from_dict
from hbr.errors import one_line
from hbr.models.config import TextEncoderConfig, TextPromptConfig
from hbr.models.text_buffer import TextBuffer
from hbr.weights import WeightsError


class TextPrompt(nn.Module):
    """The same prompt for every image."""

    embedding: Tensor

    def __init__(self, config: TextPromptConfig) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.zeros(config.n_queries, config.width))

    def forward(self, image: Tensor) -> Tensor:
        """The prompt: [b, 3, h, w] → [b, q, d], independent of the image."""
        return repeat(self.embedding, "q d -> b q d", b=image.shape[0])


class TextEncoder(nn.Module):
    """CLIP's text encoder with its tokenizer; frozen.

    Source: Radford et al. 2021; Stable Diffusion 2 has the first 23 layers of OpenCLIP's ViT-H/14.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.vocabulary = config.vocabulary
        self.clip = CLIPTextModel(_clip_config(config))
        self.tokenizer = TextBuffer(_tokenizer)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """The prompts of texts: [b, q, d]; longer texts are truncated to q tokens.

        Raises:
            WeightsError: the tokenizer is missing or damaged.
        """
        tokenizer = self.tokenizer.value
        device = self.clip.embeddings.token_embedding.weight.device
        ids = torch.tensor([e.ids for e in tokenizer.encode_batch(list(texts))], device=device)
        if int(ids.max()) >= self.vocabulary:
            raise WeightsError("the tokenizer of the model file belongs to another text encoder")
        return cast(Tensor, self.clip(ids).last_hidden_state)


def embed_text(folder: str | Path, text: str) -> Tensor:
    """The prompt of a text: [q, d], float32.

    Args:
        folder: as for `load_text_encoder`.
        text: truncated to the number of tokens that the encoder takes.

    Raises:
        WeightsError: as for `load_text_encoder`.
    """
    return cast(Tensor, load_text_encoder(folder)[1]([text])[0])


def load_text_encoder(folder: str | Path) -> tuple[TextEncoderConfig, TextEncoder]:
    """Load the text encoder of a diffusers folder, in float32, and its configuration.

    Args:
        folder: in diffusers layout, with `tokenizer/` and `text_encoder/` (CLIP).

    Raises:
        WeightsError: either is missing or damaged, or weights of the encoder are missing.
    """
    folder = Path(folder)
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise WeightsError(f"{folder} has no {part}/; the prompt of a text needs it")
    try:
        with quiet():
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            clip, loaded = CLIPTextModel.from_pretrained(
                folder / "text_encoder",
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # a damaged folder can raise anything
        line = one_line(error, 200)
        raise WeightsError(f"{folder}: its text encoder does not load: {line}") from None
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        # a buffer that older versions stored
        found = [key for key in loaded[what] if "position_ids" not in str(key)]
        if found:
            state = what.removesuffix("_keys")
            raise WeightsError(
                f"{folder}/text_encoder: {state} weight {sorted(map(str, found))[0]}"
            )
    config = _read_config(clip.config, folder / "text_encoder" / "config.json")
    with torch.device("meta"):
        encoder = TextEncoder(config)
    encoder.clip = clip.requires_grad_(False)
    encoder.tokenizer = TextBuffer(_tokenizer)  # not on the meta device
    encoder.tokenizer.put(_written(tokenizer, config.length))
    return config, encoder.eval()


def _clip_config(config: TextEncoderConfig) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=config.vocabulary,
        max_position_embeddings=config.length,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_attention_heads=config.heads,
        num_hidden_layers=config.layers,
        hidden_act=config.activation,
        # positions for pooling, which prompts do not use; toy vocabularies lack the published ids
        bos_token_id=0,
        eos_token_id=2,
    )


def _read_config(clip: CLIPTextConfig, path: Path) -> TextEncoderConfig:
    fields = {
        "vocabulary": clip.vocab_size,
        "length": clip.max_position_embeddings,
        "width": clip.hidden_size,
        "mlp_width": clip.intermediate_size,
        "heads": clip.num_attention_heads,
        "layers": clip.num_hidden_layers,
        "activation": clip.hidden_act,
    }
    try:
        config = from_dict(TextEncoderConfig, fields)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    # affects its output, and is not part of the configuration
    got, ours = clip.layer_norm_eps, _clip_config(config).layer_norm_eps
    if got != ours:
        raise WeightsError(f"{path}: layer_norm_eps is {got!r}; hbr computes {ours!r}")
    return config


def _written(tokenizer: CLIPTokenizer, length: int) -> str:
    """The tokenizer as JSON, truncating and padding every text to `length` tokens."""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.enable_truncation(length)
    plain.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=str(tokenizer.pad_token)
    )
    return json.dumps(json.loads(plain.to_str()), ensure_ascii=False, separators=(",", ":"))


def _tokenizer(text: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare exceptions
        line = one_line(error, 200)
        raise WeightsError(f"the model's tokenizer is missing or damaged: {line}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of transformers; problems are raised as errors."""
    from transformers.utils import logging as transformers_logging

    log = logging.getLogger("transformers")
    level = log.level
    had_bar = transformers_logging.is_progress_bar_enabled()
    try:
        log.setLevel(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if had_bar:
            transformers_logging.enable_progress_bar()
