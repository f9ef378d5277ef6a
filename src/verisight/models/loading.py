"""Opening model folders: what is supported is decided from their configuration, before any weights are read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging as hf_logging

from verisight.models.encoding import Encoder
from verisight.models.families import Family, check_config, family_of
from verisight.models.processors import load_processor
from verisight.types import UserError

POCKET = "pocket"  # the word that stands for the built-in model
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pocket_folder() -> Path:
    """Where the built-in model lies inside the package."""
    return Path(str(files("verisight.pocket") / "assets" / "model"))


def check_model(path: str) -> Family | None:
    """Refuse what is not a supported VLM folder (or adapter folder). None for hub ids, left to Hugging Face.

    Raises:
        UserError: no such folder, no or broken config.json, an unsupported model type, or weights that are not
            safetensors.
    """
    folder = pocket_folder() if path == POCKET else Path(path)
    if not folder.is_dir():
        if folder.is_absolute() or path.startswith(".") or path.count("/") != 1:
            accepted = f"a model folder, a hub id 'owner/name' or '{POCKET}'"
            raise UserError(f"model.path: no folder {path}; accepted: {accepted}")
        return None
    if (folder / "adapter_config.json").is_file():
        family = check_model(base_of(folder))
    elif not (folder / "config.json").is_file():
        raise UserError(f"model.path: {path} has no config.json; accepted: a Hugging Face model folder")
    else:
        family = _supported(folder, path)
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"model.path: {path} holds no *.safetensors weights (other formats are not opened)")
    return family


def load_model(path: str, *, dtype: str, trust_remote_code: bool = False) -> tuple[Any, Any]:
    """A model and its processor from a folder, a hub id or 'pocket'. An adapter folder opens on its base, not merged.

    Image processors run on PIL. Only safetensors weights are read.

    Raises:
        UserError: see `check_model`; a broken weight file, or one that lacks weights of the model.
    """
    check_model(path)
    hf_logging.disable_progress_bar()
    source = str(pocket_folder()) if path == POCKET else path
    model_type = config_of(source, trust_remote_code=trust_remote_code).model_type
    processor = load_processor(source, model_type=model_type, trust_remote_code=trust_remote_code)
    Encoder(processor)  # what a processor lacks is said before any weights are read
    if not (Path(source) / "adapter_config.json").is_file():
        return _read_weights(source, dtype=dtype, trust_remote_code=trust_remote_code), processor
    from peft import PeftModel

    base, _ = load_model(base_of(Path(source)), dtype=dtype, trust_remote_code=trust_remote_code)
    with quiet_peft():
        return PeftModel.from_pretrained(merged(base), source).eval(), processor


def config_of(source: str, *, trust_remote_code: bool) -> Any:
    """The configuration of a model, of an adapter folder that of the model below it."""
    while (Path(source) / "adapter_config.json").is_file():
        base = base_of(Path(source))
        source = str(pocket_folder()) if base == POCKET else base
    return AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def merged(model: Any) -> Any:
    """The model with its adapter (if it has one) added to its weights."""
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def _read_weights(source: str, *, dtype: str, trust_remote_code: bool) -> Any:
    check_config(config_of(source, trust_remote_code=trust_remote_code).to_dict())  # a hub id's is seen here first
    try:
        model, found = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=_DTYPES[dtype],
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise UserError(f"model.path: the weights of {source} cannot be read ({error})") from error
    if lacking := sorted(found["missing_keys"]):
        raise UserError(f"model.path: {source} lacks {len(lacking)} weights of its model, such as {lacking[0]}")
    return model.eval()


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that peft asks transformers by a name that is going away; users can do nothing about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        yield


def _supported(folder: Path, path: str) -> Family:
    try:
        family_of(_read_config(folder / "config.json").get("model_type") or "")
        return check_config(AutoConfig.from_pretrained(folder).to_dict())
    except UserError as error:
        raise UserError(f"model.path: {path}: {error}") from error
    except Exception as error:  # transformers raises whatever its validators raise
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"model.path: {path}: its config.json is no configuration of a model ({told})") from error


def base_of(folder: Path) -> str:
    """The model that an adapter folder names as its base."""
    base = _read_config(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base or not isinstance(base, str) or base == str(folder):
        raise UserError(f"{folder}/adapter_config.json: base_model_name_or_path is {base!r}; accepted: another model")
    return base


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, accepted: a JSON object")
    return config
