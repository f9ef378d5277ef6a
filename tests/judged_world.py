"""Re-enacted sets whose better answer is better, without the shipped model, and their scenes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from verisight.pocket.datasets import scene, write_split
from verisight.pocket.language import DETAIL_PROMPTS, Narrator
from verisight.pocket.oracle import Task
from verisight.pocket.reenact import write_povid, write_vlfeedback_corrupted
from verisight.pocket.scenes import Scene, render
from verisight.pocket.voices import VOICES, Asked, existence, tell

NUM_SCENES = 40
POVID = "POVID_preference_data_for_VLLMs_version_1.json"


def write_world(folder: Path) -> Path:
    """Write povid/, corrupted/ and preference/ (with scenes.json): two questions about every scene."""
    asked = []
    for index in range(NUM_SCENES):
        one = scene("preference", index)
        rng = np.random.default_rng(index)
        for task in (Task(one, DETAIL_PROMPTS[index % 4]), existence(one, rng)):
            answers = {name: (tell(task, Narrator(), rng),) for name in VOICES}
            asked.append(Asked(task, _jpeg(one), tell(task, Narrator(), rng), answers))
    write_povid(folder / "povid", asked, noise=0.0, seed=0)
    write_vlfeedback_corrupted(folder / "corrupted", asked, noise=0.0, seed=0)
    write_split(folder, "preference", num=NUM_SCENES)
    return folder


def _jpeg(one: Scene) -> bytes:
    buffer = BytesIO()
    render(one).save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()
