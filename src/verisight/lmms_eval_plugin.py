"""What the entry point `lmms_eval.models` gives to lmms-eval: the model's name, and where its class is."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """An lmms_eval ModelManifest. The class is imported when the model is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyrefly: ignore[missing-import]

    return ModelManifest("verisight", simple_class_path="verisight.lmms_eval_model.VerisightModel")
