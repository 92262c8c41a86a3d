"""A vision-language model of transformers that describes the person in a photo as tags.

Any model that transformers knows as image-text-to-text and that follows an instruction will do;
SmolVLM (Idefics3) is the one of the catalogue. DiffBody had GPT-4V write its captions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hbr.errors import one_line
from hbr.models.text import quiet
from hbr.weights import WeightsError, find_weights

NAME = "smolvlm-256m"

INSTRUCTION = (
    "Describe the person in the middle of this photo by short tags, separated by commas, in this "
    "order: who it is (such as a young woman); what is worn on face and neck; clothes of the upper "
    "body with their colours; hands; clothes of the lower body; shoes; what the person carries. "
    "Leave out what is not visible. Answer with the tags alone, in English."
)

Describe = Callable[[np.ndarray], str]
"""A photo [h, w, 3] uint8 RGB → what the model answers, word for word."""

_TOKENS = 96  # more than CLIP reads of a caption


def load_captioner(model: str | Path = NAME, device: str = "cpu") -> Describe:
    """Load a vision-language model; its answers are the most probable ones, without sampling.

    Args:
        model: a name of `hbr models list`, or a folder as transformers writes it.
        device: cpu, cuda, cuda:1, mps.

    Raises:
        WeightsError: it is missing, or no such model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = Path(model)
    if not folder.is_dir():
        folder = find_weights(str(model), "hbr curate captions")
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        with quiet():
            network = AutoModelForImageTextToText.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32
            )
        content = [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]
        prompt = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
    except Exception as error:  # a damaged folder can raise anything
        raise WeightsError(
            f"{folder} is not a vision-language model of transformers that follows instructions: "
            f"{one_line(error, 200)}"
        ) from None
    network = network.requires_grad_(False).eval().to(device)

    def describe(photo: np.ndarray) -> str:
        image = Image.fromarray(photo)
        inputs = processor(text=prompt, images=[image], return_tensors="pt").to(device)
        with torch.inference_mode():
            found = network.generate(**inputs, max_new_tokens=_TOKENS, do_sample=False)
        answer = found[:, inputs["input_ids"].shape[1] :]
        return str(processor.batch_decode(answer, skip_special_tokens=True)[0])

    return describe
