"""Which picture a name means, in a folder and in an archive, and which names mean none."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from picture_files import COCO, TRAIN, VAL, fill, png, shade
from verisight.data.encoded import ImageError
from verisight.data.images import image_hash
from verisight.data.pictures import SUBFOLDERS, Pictures
from verisight.types import UserError


def pack(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def refused(path: Path | Pictures, name: str) -> str:
    """The reason why the picture of that name cannot be used."""
    pictures = path if isinstance(path, Pictures) else Pictures(path, decode=True)
    with pytest.raises(ImageError) as error:
        pictures.named(name)
    assert len(str(error.value)) < 1000
    return error.value.reason


# names, in a folder and in an archive alike


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("there", "name", "taken"),
    [
        (["a/b.jpg"], "a/b.jpg", 1),
        (["b.jpg"], "coco/train2017/b.jpg", 1),
        ([TRAIN], "./data/coco/" + TRAIN, 1),
        (["coco/" + TRAIN], "./data/coco/" + TRAIN, 1),
        ([COCO], "./data/coco/" + TRAIN, 1),
        ([TRAIN], COCO, 1),
        ([VAL], "coco/train2017/" + COCO, 1),
        (["coco/" + TRAIN, "x.jpg"], "coco/" + COCO, 1),
        ([VAL], TRAIN, 1),
        (["x.jpg", "train2014/" + TRAIN], "coco/train2017/" + COCO, 2),
        (["x.jpg", "val2014/" + VAL], VAL, 2),
        (["x.jpg", "train2017/" + COCO], TRAIN, 2),
        (["y.jpg", "merged_images/x.jpg"], "x.jpg", 2),
        (["y.jpg", "images/sub/x.jpg"], "sub/x.jpg", 2),
        (["a/b.jpg"], "a\\b.jpg", 1),
        (["a/b.jpg", "b.jpg"], "C:\\old\\a\\b.jpg", 1),
        (["b.jpg"], "/home/somebody/cache/b.jpg", 1),
        (["é ü.jpg"], "é ü.jpg", 1),
        (["a/" * 30 + "b.jpg"], "a/" * 30 + "b.jpg", 1),
        # equal names: the exact path wins, then the longer end of the name
        (["b.jpg", "a/b.jpg"], "a/b.jpg", 2),
        (["b.jpg", "a/b.jpg", "images/a/b.jpg"], "x/a/b.jpg", 2),
        (["two/b.jpg", "one/b.jpg"], "one/b.jpg", 2),
        (["two/b.jpg", "one/b.jpg"], "two/b.jpg", 1),
        (["images/b.jpg", "b.jpg"], "b.jpg", 2),
        ([VAL, TRAIN, COCO], COCO, 3),
        ([VAL, TRAIN], COCO, 2),
        ([COCO, "train2014/" + TRAIN], TRAIN, 1),
    ],
)
def test_names(tmp_path: Path, as_zip: bool, there: list[str], name: str, taken: int) -> None:
    root = fill(tmp_path / "pictures", there, as_zip=as_zip)
    ref = Pictures(root, decode=True).named(name)
    assert shade(ref) == taken
    assert ref.path == (root if as_zip else root / there[taken - 1])
    assert ref.member == (there[taken - 1] if as_zip else None)
    assert ref.sha256 == image_hash(ref) == hashlib.sha256(png(taken)).hexdigest()
    assert Pictures(root, decode=False).named(name).sha256 is None


def test_absolute_names_below_the_root(tmp_path: Path) -> None:
    root = fill(tmp_path / "pictures", ["b.jpg", "a/b.jpg"], as_zip=False)
    assert shade(Pictures(root, decode=True).named(str(root / "a" / "b.jpg"))) == 2
    assert refused(root, str(root / "../pictures/b.jpg")) == "image outside root"


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "image missing"),
        (" \n", "image missing"),
        (".", "image missing"),
        ("./", "image missing"),
        ("/", "image missing"),
        ("a", "image missing"),
        ("a/", "image missing"),
        ("none.jpg", "image missing"),
        ("c.jpg", "image missing"),
        ("b.jpg/", "no error"),
        ("b.jpg/x", "image missing"),
        ("b\0.jpg", "image missing"),
        ("b.jpg\0", "image missing"),
        ("\udc80.jpg", "image missing"),
        ("\ud800", "image missing"),
        ("x" * 300, "image missing"),
        ("x" * 5000, "image missing"),
        ("a/" * 2000 + "b", "image missing"),
        ("x" * 10_000_000, "image missing"),
        ("http://host/none.jpg", "image missing"),
        ("00442786.jpg", "image missing"),
        ("~/c.jpg", "image missing"),
        ("$HOME/c.jpg", "image missing"),
        ("..", "image outside root"),
        ("../b.jpg", "image outside root"),
        ("..\\b.jpg", "image outside root"),
        ("a/../../secret.png", "image outside root"),
        ("a/..\\..\\secret.png", "image outside root"),
        ("a/../b.jpg", "image outside root"),
        ("/etc/passwd", "image outside root"),
        ("/etc/../b.jpg", "image outside root"),
        ("C:\\Windows\\win.ini", "image outside root"),
        ("C:win.ini", "image outside root"),
        ("\\\\host\\share\\x.png", "image outside root"),
        ("//host/share/x.png", "image outside root"),
    ],
)
def test_names_of_nothing(tmp_path: Path, as_zip: bool, name: str, reason: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    root = fill(tmp_path / "pictures", ["b.jpg", "a/c.jpg"], as_zip=as_zip)
    if reason == "no error":
        assert shade(Pictures(root, decode=True).named(name)) == 1
    else:
        assert refused(root, name) == reason


def test_messages_can_be_written_anywhere(tmp_path: Path) -> None:
    for name in ("\udc80.jpg", "a\0b", "\x1b[2J.jpg"):
        with pytest.raises(ImageError) as error:
            Pictures(tmp_path, decode=False).named(name)
        assert str(error.value).encode("utf-8").decode().isprintable()


@pytest.mark.parametrize("name", ["link.png", "folder/secret.png", "images/link.png", "x/link.png"])
def test_links_that_lead_out(tmp_path: Path, name: str) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "images").mkdir(parents=True)
    out.mkdir()
    (out / "secret.png").write_bytes(png())
    (root / "link.png").symlink_to(out / "secret.png")
    (root / "images" / "link.png").symlink_to(out / "secret.png")
    (root / "folder").symlink_to(out)
    assert refused(root, name) == "image outside root"


def test_links_inside_and_to_the_root(tmp_path: Path) -> None:
    root = fill(tmp_path / "real", ["a.png"], as_zip=False)
    (root / "b.png").symlink_to(root / "a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (tmp_path / "root").symlink_to(root)
    pictures = Pictures(tmp_path / "root", decode=True)
    assert shade(pictures.named("a.png")) == shade(pictures.named("b.png")) == 1
    assert refused(pictures, "loop.png") == "image missing"


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_of_two_different_pictures_in_equal_places_none_is_taken(tmp_path: Path, as_zip: bool) -> None:
    root = fill(tmp_path / "pictures", ["images/a.png", "train2017/a.png"], as_zip=as_zip)
    pictures = Pictures(root, decode=True)
    with pytest.raises(ImageError, match=r"image ambiguous: 'a\.png' is images/a\.png and train2017/a\.png"):
        pictures.named("a.png")
    assert shade(pictures.named("train2017/a.png")) == 2


def test_of_two_equal_pictures_in_equal_places_the_first_is_taken(tmp_path: Path) -> None:
    for name in reversed(SUBFOLDERS):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png(7))
    assert Pictures(tmp_path, decode=True).named("a.png").path == tmp_path / SUBFOLDERS[0] / "a.png"
    (tmp_path / SUBFOLDERS[0] / "a.png").unlink()
    assert Pictures(tmp_path, decode=True).named("a.png").path == tmp_path / SUBFOLDERS[1] / "a.png"


@pytest.mark.parametrize("kind", ["none", "text", "cut", "pipe"])
def test_roots_that_hold_no_pictures(tmp_path: Path, kind: str) -> None:
    root = tmp_path / kind
    if kind == "text":
        root.write_text("hello")
    elif kind == "cut":
        whole = fill(tmp_path / "whole", ["a.png", "b.png"], as_zip=True).read_bytes()
        root.write_bytes(whole[: len(whole) // 2])
    elif kind == "pipe":
        os.mkfifo(root)
    with pytest.raises(UserError, match=rf"{kind}: found no.*accepted: an existing folder of pictures, or a zip"):
        Pictures(root, decode=False)


def test_without_a_root(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"image missing: 'a\.png' \(no image folder was given\)"):
        Pictures(None, decode=False, base=tmp_path).named("a.png")


@pytest.mark.parametrize("name", ["x.png", "merged_images/x.png", "merged_images/merged_images/x.png", "data/x.png"])
@pytest.mark.parametrize("there", ["merged_images/x.png", "./merged_images//x.png", "merged_images\\x.png"])
def test_the_single_top_folder_of_an_archive(tmp_path: Path, there: str, name: str) -> None:
    path = pack(tmp_path / "a.zip", ("merged_images/", b""), (there, png(3)), ("__MACOSX/merged_images/._x.png", b"?"))
    assert shade(Pictures(path, decode=True).named(name)) == 3


def test_sub_folders_below_the_top_folder(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", ("coco/train2014/" + TRAIN, png(3)), ("coco/val2014/x.png", png(4)))
    assert shade(Pictures(path, decode=True).named(COCO)) == 3
    assert shade(Pictures(path, decode=True).named("val2014/x.png")) == 4


def test_names_of_a_set_lack_the_same_folders(tmp_path: Path) -> None:
    """Else a/1.png and b/1.png would show one picture."""
    root = tmp_path / "a"
    root.mkdir()
    Image.new("RGB", (4, 4)).save(root / "1.png")
    for name in ("COCO_train2014_000000000009.png", "000000000009.png"):
        Image.new("RGB", (5, 5)).save(root / name)
    pictures = Pictures(root, decode=True)
    assert pictures.named("a/1.png").path == root / "1.png"
    for other in ("b/1.png", "c/d/1.png"):
        with pytest.raises(ImageError, match=r"image ambiguous: .*1\.png is what names without a mean"):
            pictures.named(other)
    assert pictures.named("1.png").path == root / "1.png"
    assert pictures.named("data/coco/COCO_train2014_000000000009.png").path is not None


def test_a_snapshot_of_a_hub_links_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "datasets--me--set"
    (repository / "blobs").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(repository / "blobs" / "abc", format="PNG")
    images = repository / "snapshots" / "1" / "images"
    images.mkdir(parents=True)
    (images / "a.png").symlink_to("../../../blobs/abc")
    (images / "b.png").symlink_to("/etc/hostname")
    assert Pictures(images, decode=True).named("a.png").sha256
    with pytest.raises(ImageError, match="image outside root"):
        Pictures(images, decode=True).named("b.png")
