"""Model folders with a card, and pushing them to the Hugging Face hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hbr.errors import HbrError, one_line
from hbr.files import making_folder, write_text
from hbr.models.exporting.card import About, model_card, recipe_text, usage_with_hbr
from hbr.weights import WeightsError

MODEL_FILE = "model.safetensors"


class HubError(HbrError, ValueError):
    """The hub cannot be reached or refuses the push; the message says what to do."""

    http_status = 502


def write_model_folder(model: Path, about: About, out: Path) -> Path:
    """Write `model.safetensors`, its card as README.md, and its training recipe if known.

    Args:
        model: a model file of hbr.
        about: the content of the card; it must name a licence.
        out: the folder; new or empty.

    Raises:
        WeightsError: there is no licence.
        OSError: `out` is not empty, or cannot be written; nothing is left behind.
    """
    if not about.licence:
        raise WeightsError(
            f"{model} names no licence; --licence names the one that it is published under"
        )
    card = model_card(about, usage=usage_with_hbr(MODEL_FILE))
    with making_folder(out) as folder:
        shutil.copyfile(model, folder / MODEL_FILE)
        write_text(folder / "README.md", card)
        if about.recipe is not None:
            write_text(folder / "recipe.yaml", recipe_text(about.recipe))
    return out


def check_repository(repo: str) -> None:
    """Raise `HubError` unless `repo` is a valid repository name and a token is available."""
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise HubError(f"{repo!r} is not a repository name; it must be NAMESPACE/NAME") from None
    if get_token() is None:
        raise HubError("there is no token for the hub; log in with `hf auth login` or set HF_TOKEN")


def push_folder(folder: Path, repo: str, *, private: bool = False, message: str) -> str:
    """Push the files of a folder to a model repository, in one commit.

    All files of `folder` are pushed; `repo` is `NAMESPACE/NAME`, created if it does not exist.

    Returns:
        the URL of the commit.

    Raises:
        HubError: there is no token or no network, or the hub refuses; the repository is unchanged.
    """
    check_repository(repo)
    api = HfApi()
    try:
        api.create_repo(repo, private=private, repo_type="model", exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, repo_type="model", commit_message=message
        )
    except OfflineModeIsEnabled:
        raise HubError(f"{repo}: HF_HUB_OFFLINE is set; nothing was pushed") from None
    except RepositoryNotFoundError:
        raise HubError(f"{repo}: this token may not write to such a repository") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = error.server_message or one_line(error, 200)
        raise HubError(f"{repo}: the hub answers {status}: {reason}; nothing was pushed") from None
    except Exception as error:  # what a broken connection raises depends on the library
        line = one_line(error, 200)
        raise HubError(
            f"{repo}: the hub cannot be reached: {line}; nothing was pushed, the same command "
            "tries again"
        ) from None
    return str(commit.commit_url)
