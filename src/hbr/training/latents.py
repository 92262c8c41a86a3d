"""Latents of HQ crops, encoded once and kept in files.

Shapes: b batch, s size of the crop, c latent channels, h w latent size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbr.config import to_dict
from hbr.files import write_bytes
from hbr.training.config import TrainConfig

log = logging.getLogger(__name__)

_DIGEST = 16


@dataclass(frozen=True)
class LatentCache:
    """A folder of latents, each in a file that is named by the content of its crop.

    A file is a digest of 16 bytes and the float32 values behind it; a damaged one is made anew.

    Attributes:
        folder: the latents of one encoder.
        channels: c.
        factor: pixels along one edge of a latent cell, s / h.
    """

    folder: Path
    channels: int
    factor: int

    def load(self, crop: Tensor) -> Tensor | None:
        """Return the latent of a crop, uint8 [3, s, s] → float32 [c, h, w]; None if not kept."""
        file = self._file(crop)
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: %s; the crop is encoded anew", file, error)
            return None
        shape = (self.channels, *(edge // self.factor for edge in crop.shape[-2:]))
        digest, values = data[:_DIGEST], data[_DIGEST:]
        if len(values) != 4 * math.prod(shape) or digest != _digest(values):
            log.warning("%s is damaged; the crop is encoded anew", file)
            return None
        return torch.from_numpy(np.frombuffer(values, "<f4").reshape(shape).astype(np.float32))

    def keep(self, crop: Tensor, z: Tensor) -> None:
        """Write the latent of a crop, uint8 [3, s, s] and float32 [c, h, w].

        Raises:
            OSError: the file cannot be written.
        """
        values = z.cpu().contiguous().numpy().astype("<f4").tobytes()
        write_bytes(self._file(crop), _digest(values) + values)

    def complete(
        self, images: Tensor, kept: Sequence[Tensor | None], encode: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the latents of a batch; those that are missing are encoded and kept.

        Args:
            images: HQ crops [b, 3, s, s] in [0, 1], whole 8-bit levels.
            kept: their latents, as `load` returned them.
            encode: images [b, 3, s, s] in [0, 1] → latents [b, c, h, w]. It is given one image
                at a time, so that a latent does not depend on the batch.
        """
        latents = []
        for image, z in zip(images.split(1), kept, strict=True):
            if z is None:
                with torch.no_grad():
                    (z,) = encode(image).float()
                self.keep((image[0] * 255).round().byte().cpu(), z)
            latents.append(z)
        return tuple(latents)

    def _file(self, crop: Tensor) -> Path:
        digest = hashlib.sha256(f"{tuple(crop.shape)}".encode())
        digest.update(crop.numpy().tobytes())
        name = digest.hexdigest()[:32]
        return self.folder / name[:2] / name


def _digest(values: bytes) -> bytes:
    return hashlib.blake2b(values, digest_size=_DIGEST).digest()


def open_latents(config: TrainConfig, model: Any, device: torch.device) -> LatentCache | None:
    """Return the folder of the latents of a model's encoder; None if none are kept.

    Its name tells the encoder's weights, the precision and the kind of device, which all have a
    part in the values.

    Raises:
        OSError: the folder cannot be made.
    """
    latents = config.data.latents
    if latents is None:
        return None
    autoencoder = model.config.autoencoder
    made_by = [to_dict(autoencoder), config.precision, device.type]
    digest = hashlib.sha256(json.dumps(made_by).encode())
    for name, tensor in sorted(model.autoencoder.state_dict().items()):
        if not name.startswith(("decoder.", "post_quant_conv.")):
            digest.update(name.encode())
            digest.update(tensor.cpu().float().numpy().tobytes())
    folder = latents.cache / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return LatentCache(folder, autoencoder.latent_channels, autoencoder.factor)
