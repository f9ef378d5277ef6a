"""Pictures of the pocket world that are known: which scene a picture shows, and what a prompt asks about it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verisight.data.encoded import where_is
from verisight.data.files import read_json
from verisight.data.images import load_image
from verisight.pocket.language import DETAIL_PROMPTS
from verisight.pocket.oracle import Task
from verisight.pocket.scenes import CELL_SIZE, CELLS, KINDS, OBJECTS, Placed, Scene
from verisight.types import ImageRef, Prompt, UserError

_SIDE = 16  # pixels of the small pictures that are compared
_ALIKE = 2.0  # grey levels, mean difference up to which two of them are the same scene
_YES_NO = re.compile(r"Is there an? (?P<name>[\w ]+?) in (?:the|this) (?:image|picture)\?", re.IGNORECASE)
_DESCRIBE = frozenset(text.casefold() for text in DETAIL_PROMPTS)


class KnownScenes:
    """The scenes of a scenes.json as `verisight pocket data` writes it, found by their pictures.

    A file is told by the number that its name ends in (`COCO_train2014_000010000003.jpg`, `pocket-10000003.jpg`).
    A picture held as bytes, or whose name says nothing, is told by its looks, from the pictures in the folder
    `images` beside the file.
    """

    def __init__(self, file: Path) -> None:
        """Read the file. Raises UserError when it is none, or an entry holds what the world does not."""
        self._file = file
        entries = read_json(file)
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{file}: found no list of scenes; accepted: scenes.json of `verisight pocket data`")
        self._scenes: dict[int, Scene] = {}
        self._names: dict[int, str] = {}
        for at, entry in enumerate(entries):
            one = _scene(entry, f"{file}: entry {at}")
            if one.uid in self._scenes:
                raise UserError(f"{file}: entry {at}: found image_id {one.uid} again; accepted: each scene once")
            self._scenes[one.uid] = one
            self._names[one.uid] = str(entry.get("file_name", ""))

    def __len__(self) -> int:
        return len(self._scenes)

    def find(self, ref: ImageRef) -> Scene:
        """The scene that a picture shows.

        Raises:
            UserError: it is none of the scenes. ImageError: it cannot be read.
        """
        named = re.search(r"(\d+)$", Path(ref.member or ref.path or "").stem)
        if named and int(named[1]) in self._scenes:
            return self._scenes[int(named[1])]
        uids, known = self._looks
        shown = _small(load_image(ref))
        distances = np.abs(known - shown).mean(axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] > _ALIKE:
            raise UserError(
                f"{where_is(ref)}: shows none of the {len(self)} scenes of {self._file} (the nearest differs by "
                f"{distances[nearest]:.1f} grey levels); accepted: their pictures, unchanged"
            )
        return self._scenes[uids[nearest]]

    @cached_property
    def _looks(self) -> tuple[list[int], NDArray[np.float32]]:
        """Numbers of the scenes whose picture is there, and the small pictures, a row each."""
        folder = self._file.parent / "images"
        paths = {uid: folder / name for uid, name in self._names.items() if name and (folder / name).is_file()}
        if not paths:
            raise UserError(
                f"{folder}: holds no picture of {self._file.name}, by which a picture without a name could be told; "
                "accepted: the folder that `verisight pocket data` wrote"
            )
        return list(paths), np.stack([_small(load_image(ImageRef(path=path))) for path in paths.values()])


def task_of(prompt: Prompt, scenes: KnownScenes) -> Task:
    """What a prompt asks about its picture: a description, or whether an object is there.

    Raises:
        UserError: it has not exactly one picture, the picture is unknown, or the question is of another kind.
    """
    if len(prompt.images) != 1:
        raise UserError(f"row {prompt.uid}: found {len(prompt.images)} pictures; the oracle takes one")
    scene = scenes.find(prompt.images[0])
    question = " ".join(prompt.text.split())
    if found := _YES_NO.fullmatch(question):
        return Task(scene, prompt.text, found["name"].lower())
    if question.casefold() in _DESCRIBE:
        return Task(scene, prompt.text)
    known = ", ".join(map(repr, DETAIL_PROMPTS))
    raise UserError(
        f"row {prompt.uid}: the oracle knows no answer to {question[:80]!r}; accepted: 'Is there a dog in the image?' "
        f"and the like, {known}"
    )


def _scene(entry: Any, where: str) -> Scene:
    try:
        kind, uid = entry["kind"], entry["image_id"]
        told = [(item["name"], item["cell"]) for item in entry["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        keys = "image_id, kind, objects[].name, objects[].cell"
        raise UserError(f"{where}: is incomplete ({error!r}); needed are {keys}") from error
    if type(uid) is not int or uid < 0:
        raise UserError(f"{where}: found image_id {uid!r}; accepted: a whole number, 0 or more")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{where}: found the kind of place {kind!r}; accepted: {', '.join(KINDS)}")
    for name, cell in told:
        if not isinstance(name, str) or name not in OBJECTS or cell not in CELLS:
            raise UserError(f"{where}: found {name!r} in {cell!r}; accepted: objects and cells of the pocket world")
    placed = sorted((CELLS.index(cell), name) for name, cell in told)
    return Scene(uid, kind, tuple(Placed(name, cell, CELL_SIZE, 0, 0) for cell, name in placed), 0)


def _small(picture: Image.Image) -> NDArray[np.float32]:
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
