"""Pictures in cells of tables, what is remembered of them, and their split groups."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from picture_files import COCO, TRAIN, VAL, fill, png, shade
from verisight.data.encoded import ImageError
from verisight.data.images import ImageChecker
from verisight.data.pictures import Pictures, group
from verisight.types import ImageRef

# cells


def test_cells_with_bytes() -> None:
    pictures = Pictures(None, decode=True)
    for cell in (png(9), bytearray(png(9)), {"bytes": png(9), "path": "/etc/passwd"}, {"bytes": png(9)}):
        ref = pictures.cell(cell)
        assert (ref.path, shade(ref), ref.sha256) == (None, 9, hashlib.sha256(png(9)).hexdigest())
    assert Pictures(None, decode=False).cell(png(9)).sha256 is None


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "image missing"),
        ({}, "image missing"),
        ({"bytes": None, "path": None}, "image missing"),
        ({"bytes": None, "path": ""}, "image missing"),
        ({"bytes": None, "path": "none.png"}, "image missing"),
        ({"bytes": None, "path": "a\0.png"}, "image missing"),
        ({"bytes": None, "path": "../secret.png"}, "image outside root"),
        ({"bytes": None, "path": "/etc/passwd"}, "image outside root"),
        ({"bytes": None, "path": 7}, "image unreadable"),
        ({"bytes": "aGVsbG8=", "path": "a.png"}, "image unreadable"),
        ({"bytes": [1, 2], "path": None}, "image unreadable"),
        ({"bytes": b"", "path": "a.png"}, "image truncated"),
        (b"", "image truncated"),
        (b"hello", "image unreadable"),
        (png()[:40], "image truncated"),
        ("../secret.png", "image outside root"),
        ("link.png", "image outside root"),
        ("/etc/passwd", "image outside root"),
        ("\udc80", "image missing"),
        (7, "image unreadable"),
        (float("nan"), "image unreadable"),
        (["a.png"], "image unreadable"),
        (True, "image unreadable"),
    ],
)
@pytest.mark.parametrize("as_base", [False, True], ids=["root", "base"])
def test_cells_that_cannot_be_used(tmp_path: Path, cell: object, reason: str, as_base: bool) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    folder = fill(tmp_path / "folder", ["a.png"], as_zip=False)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    pictures = Pictures(None if as_base else folder, decode=True, base=folder)
    with pytest.raises(ImageError) as error:
        pictures.cell(cell)
    assert error.value.reason == reason


def test_paths_in_cells(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", ["x.png", "a/b.png"], as_zip=False)
    base = fill(tmp_path / "base", ["b.png", "c/b.png"], as_zip=False)
    beside, below = Pictures(None, decode=True, base=base), Pictures(root, decode=True, base=base)
    for name, number in (("c/b.png", 2), ("./b.png", 1), (str(base / "c" / "b.png"), 2)):
        assert shade(beside.cell(name)) == shade(beside.cell({"bytes": None, "path": name})) == number
    assert shade(below.cell("a/b.png")) == 2
    with pytest.raises(ImageError, match="image missing"):
        below.cell("c/b.png")
    with pytest.raises(ImageError, match="image missing"):
        beside.cell("d/b.png")  # as written, no search
    with pytest.raises(ImageError, match=r"image missing: 'b\.png' \(no image folder was given\)"):
        Pictures(None, decode=True).cell("b.png")


def test_trusted_paths(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", ["a.png"], as_zip=False)
    base = fill(tmp_path / "base", ["x.png", "a.png"], as_zip=False)
    trusted = Pictures(None, decode=True, base=base, trust_paths="all")
    assert shade(trusted.cell(str(root / "a.png"))) == 1
    assert shade(trusted.cell(f"../{root.name}/a.png")) == 1
    assert shade(trusted.cell("a.png")) == 2
    moved = Pictures(root, decode=True, base=base, trust_paths="all")
    assert shade(moved.cell(str(base / "a.png"))) == 2
    assert shade(moved.cell("/gone/elsewhere/a.png")) == 1
    with pytest.raises(ImageError, match="image missing"):
        trusted.cell(str(root / "none.png"))
    with pytest.raises(ImageError, match="image outside root"):
        moved.named("../base/a.png")


# memory and repetition


def test_each_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "pictures", ["a.png", "b.png"], as_zip=True)
    opened: list[int] = []
    decode = Image.open

    def count(*args, **options) -> Image.Image:
        opened.append(1)
        return decode(*args, **options)

    monkeypatch.setattr(Image, "open", count)
    pictures = Pictures(root, decode=True)
    for _ in range(5):
        for name in ("a.png", "x/a.png", "b.png"):
            assert pictures.named(name).sha256
        assert pictures.cell(png(9)).sha256
        with pytest.raises(ImageError, match="image unreadable"):
            pictures.cell(b"no picture")
    assert len(opened) == 4


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verisight.data.images._MAX_KNOWN", 10)
    check = ImageChecker(decode=True)
    for number in range(30):
        assert check(ImageRef(data=png(number))).sha256
    assert len(check._known) == 10


# groups


@pytest.mark.parametrize("name", [COCO, TRAIN, VAL, f"coco/train2017/{COCO}", f"./data/coco/{TRAIN}", f"x\\{VAL}"])
def test_groups_of_coco_pictures(tmp_path: Path, name: str) -> None:
    assert group(ImageRef(path=tmp_path / "x"), name) == "coco:000000442786"
    assert group(ImageRef(data=png()), name) == "coco:000000442786"


def test_groups_of_other_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert group(ImageRef(path=path), "VG_100K/7.jpg") == "name:7.jpg"
    assert group(ImageRef(path=path)) == "name:a.png"
    assert group(ImageRef(path=path, member="m/b.png")) == "name:b.png"
    digest = hashlib.sha256(png(3)).hexdigest()
    assert group(ImageRef(data=png(3)), "image.png") == group(ImageRef(data=png(3))) == f"sha256:{digest}"
    assert group(ImageRef(data=b"", sha256="ab")) == "sha256:ab"
