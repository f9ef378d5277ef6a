"""Every benchmark of the table through `verisight score`: its files, its answers, its judge."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from typer.testing import CliRunner

from chat_server import MODEL, running, said, text_of
from test_score import entry, run, write
from verisight import recipe
from verisight.cli import app
from verisight.cli_judge import judge_app
from verisight.evaluate.paired import MEASURES
from verisight.evaluate.public import PublicBenchmark
from verisight.evaluate.scorers import Files
from verisight.evaluate.table import SCORERS
from verisight.types import UserError


def test_recipes_know_every_benchmark_of_the_table() -> None:
    """chair, pope and grounded have nodes of their own."""
    kinds = set(get_args(recipe.Public.model_fields["kind"].annotation))
    assert kinds | {"chair", "pope", "grounded"} == set(SCORERS)
    assert set(SCORERS) <= set(MEASURES)
    told = CliRunner().invoke(app, ["benchmarks"]).stdout
    assert all(name in told for name in SCORERS)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_protocols_and_headlines_are_whole(name: str) -> None:
    scorer = SCORERS[name]
    assert scorer.protocols[0] == ("v1" if name == "grounded" else "official")
    assert scorer.judging is None or set(scorer.judging.without) < set(scorer.protocols)
    with pytest.raises(UserError, match=f"--protocol: found 'x'; {name} has "):
        scorer.check_protocol("x")
    with pytest.raises(UserError, match=f"{name} takes"):
        scorer.open(Files(), scorer.protocols[0])


@pytest.fixture
def amber(tmp_path: Path) -> list[Path]:
    """One picture with grass and a dog, a cat is likely to be made up; one question on it."""
    return [
        write(
            tmp_path / "annotations.json",
            [
                {"id": 1, "type": "generative", "truth": ["grass", "dog"], "hallu": ["cat"]},
                {"id": 1005, "type": "discriminative-hallucination", "truth": "no"},
            ],
        ),
        write(tmp_path / "relation.json", {"grass": ["ground"], "dog": [], "cat": []}),
        tmp_path / "safe_words.txt",
        write(
            tmp_path / "query.json",
            [
                {"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."},
                {"id": 1005, "image": "AMBER_1.jpg", "query": "Is there a cat in this image?"},
            ],
        ),
    ]


def test_amber(amber: list[Path], tmp_path: Path) -> None:
    """Nouns ground (grass), dog, cat: CHAIR 1/3, cover 2/2, hal 1/1, cog 1/1; "No" is right."""
    amber[2].write_text("light\n")
    rows = [{"id": 1, "response": "A dog and a cat on the ground."}, {"id": 1005, "response": "No"}]
    words = [word for file in amber for word in ("--annotations", file)]
    answers = write(tmp_path / "responses.json", rows)
    run("amber", "--answers", answers, *words, "--out", tmp_path / "out", "--protocol", "corrected")
    metrics = {name: one["value"] for name, one in entry(tmp_path / "out", "amber")["metrics"].items()}
    assert (metrics["chair"], metrics["cover"], metrics["hal"], metrics["cog"]) == pytest.approx((1 / 3, 1, 1, 1))
    assert metrics["accuracy"] == 1.0
    with pytest.raises(UserError, match=r"--annotations: found 2 files; amber takes annotations\.json, relation"):
        run("amber", "--answers", answers, *words[:4], "--out", tmp_path / "out")


MMHAL = [
    {
        "question_type": kind, "question_topic": "indoor", "image_id": f"i{at}", "image_content": ["dog"],
        "image_src": f"http://pictures/{at}.png", "question": "What is there?", "gt_answer": "A dog.",
        "model_answer": f"Answer number {at}.",
    }
    for at, kind in enumerate(("attribute", "adversarial", "comparison", "counting") * 2)
]  # fmt: skip


def rating(reply: str) -> Any:
    """A judge that rates answer n with n - 1 without the picture, n with it, and says it in words of its own."""

    def serve(body: dict[str, Any]) -> Any:
        number = re.search(r"Answer number (\d)", text_of(body))
        assert number is not None
        seen = isinstance(body["messages"][-1]["content"], list)
        return said(reply.format(max(0, min(6, int(number[1]) - (not seen)))))

    return serve


@pytest.mark.enable_socket
def test_mmhal_by_text_and_by_sight_and_how_they_agree(tmp_path: Path) -> None:
    """Text 0,0,1,..6; vision 0,1,..6,6. A bold rating is 0 for the official parser, and read by the corrected one.

    Official: eight unparsed replies, so no headline. Corrected: text mean (0+0+1+..+6)/8 = 21/8, vision 27/8; below 3:
    4 and 3 of 8.
    """
    (tmp_path / "pictures").mkdir()
    for at in range(len(MMHAL)):
        Image.new("RGB", (8, 8), (at, 0, 0)).save(tmp_path / "pictures" / f"{at}.png")
    file = write(tmp_path / "mmhal.json", MMHAL)
    with running() as fake:
        fake.otherwise = rating("It is fine.\n**Rating: **{}**")
        words = ["mmhal", "--answers", file, "--annotations", file, "--out", tmp_path / "out"]
        words += ["--judge-url", fake.url, "--judge-model", MODEL]
        run(*words)
        found = entry(tmp_path / "out", "mmhal")
        assert found["metrics"]["score"]["value"] == 0.0
        assert found["refused"].startswith("8 of 8 items (100.0%) are unusable (8 unparsed)")
        run(*words, "--protocol", "corrected")
        found = entry(tmp_path / "out", "mmhal")
        assert (found["metrics"]["score"]["value"], found["refused"]) == (21 / 8, "")
        assert found["metrics"]["hallucination_rate"]["value"] == 4 / 8
        assert len(fake.bodies) == 8, "another protocol reads the same replies"
        run(*words, "--protocol", "corrected", "--vision", "--images", tmp_path / "pictures")
        assert entry(tmp_path / "out", "mmhal_v")["metrics"]["score"]["value"] == 27 / 8
        with pytest.raises(UserError, match=r"--vision: found without --images"):
            run(*words, "--vision")
        (tmp_path / "pictures" / "3.png").unlink()
        with pytest.raises(UserError, match=r"images: 3\.png, the picture of i3, is not in"):
            run(*words, "--vision", "--images", tmp_path / "pictures")
    rows = [str(tmp_path / "out" / "evaluate" / f"{name}.jsonl") for name in ("mmhal", "mmhal_v")]
    told = CliRunner().invoke(judge_app, ["agree", *rows, "--threshold", "3", "--json"]).stdout
    agreed = json.loads(told)
    assert (agreed["num_both"], agreed["mean_difference"]["value"]) == (8, 6 / 8)
    assert agreed["verdict_agreement"]["value"] == 7 / 8
    told = CliRunner().invoke(judge_app, ["agree", *rows]).stdout
    assert re.search(r"spearman +0\.9\d\d \[", told)


@pytest.mark.enable_socket
def test_a_rubric_of_the_users_is_asked_and_noted(tmp_path: Path) -> None:
    file = write(tmp_path / "mmhal.json", MMHAL)
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("Of {contents}: {question} {reference} {answer} My words.")
    with running() as fake:
        fake.otherwise = said("Rating: 5")
        words = ["mmhal", "--answers", file, "--annotations", file, "--out", tmp_path / "out", "--rubric", rubric]
        run(*words, "--judge-url", fake.url, "--judge-model", MODEL)
        assert all(text_of(body).endswith("My words.") for body in fake.bodies)
        assert len(entry(tmp_path / "out", "mmhal")["judge"]["rubric"]) == 12
        rubric.write_text("{question}")
        with pytest.raises(UserError, match=r"mmhal: the rubric lacks \{contents\}"):
            run(*words, "--judge-url", fake.url, "--judge-model", MODEL)
        rubric.write_bytes(b"\xff")
        with pytest.raises(UserError, match=r"--rubric: .* can't be read"):
            run(*words, "--judge-url", fake.url, "--judge-model", MODEL)


OBJECT_HAL = [{"org_idx": at, "image_id": at, "question": "Describe it.", "image": f"{at}.jpg"} for at in range(4)]


@pytest.mark.enable_socket
def test_object_halbench_with_an_extractor_and_without(tmp_path: Path) -> None:
    """Each picture holds a dog, each answer names a dog and a cat: half of the objects are made up, all is recalled."""
    questions = write(tmp_path / "obj_halbench.jsonl", OBJECT_HAL)
    objects = write(tmp_path / "objects.json", {str(at): ["dog"] for at in range(4)})
    answers = write(
        tmp_path / "answers.jsonl", [{"image_id": at, "text": "A dog sits beside a cat."} for at in range(4)]
    )
    words = ["object_hal", "--answers", answers, "--annotations", questions, "--objects", objects]
    words += ["--out", tmp_path / "out"]
    with running() as fake:
        fake.otherwise = said('["dog", "cat"]')
        run(*words, "--judge-url", fake.url, "--judge-model", MODEL)
        assert len(fake.bodies) == 4
        with pytest.raises(UserError, match=r"vision: object_hal asks what a text says"):
            run(*words, "--judge-url", fake.url, "--judge-model", MODEL, "--vision", "--images", tmp_path)
    judged = {name: one["value"] for name, one in entry(tmp_path / "out", "object_hal")["metrics"].items()}
    run(*words, "--protocol", "plain")
    plain = {name: one["value"] for name, one in entry(tmp_path / "out", "object_hal")["metrics"].items()}
    for found in (judged, plain):
        assert (found["response_hallucination"], found["object_hallucination"], found["object_recall"]) == (1, 0.5, 1)


def test_textvqa_finds_llavas_answers_by_image_and_question(tmp_path: Path) -> None:
    """LLaVA's question_id is the image's id; two questions are about one image, and the prompt tells which."""
    asked = [("What brand?", ["nokia"] * 10), ("what colour?", ["red"] * 10)]
    rows = [
        {"question_id": at, "image_id": "abc", "question": text, "answers": people}
        for at, (text, people) in enumerate(asked)
    ]
    annotations = write(tmp_path / "TextVQA_0.5.1_val.json", {"data": rows})
    suffix = "\nReference OCR token: NOKIA, RED\nAnswer the question using a single word or phrase."
    said_rows = [("What colour?", "Red"), ("What brand?", "Samsung")]
    answers = write(
        tmp_path / "answers.jsonl",
        [{"question_id": "abc", "prompt": text + suffix, "text": word} for text, word in said_rows],
    )
    run("textvqa", "--answers", answers, "--annotations", annotations, "--out", tmp_path / "out")
    found = entry(tmp_path / "out", "textvqa")
    assert (found["metrics"]["accuracy"]["value"], found["counts"]["missing"]) == (0.5, 0)


@pytest.mark.enable_socket
def test_llava_bench_in_both_orders(tmp_path: Path) -> None:
    """A judge that gives the first 8 and the second 6, whoever it is: 6/8 officially, equal in both orders, bias 2."""
    files = [
        write(
            tmp_path / "questions.jsonl", [{"question_id": 0, "image": "1.jpg", "text": "What?", "category": "conv"}]
        ),
        write(tmp_path / "context.jsonl", [{"image": "1.jpg", "caption": "A dog."}]),
        write(tmp_path / "gpt4.jsonl", [{"question_id": 0, "text": "A dog."}]),
    ]
    answers = write(tmp_path / "answers.jsonl", [{"question_id": 0, "text": "It is a dog."}])
    words = ["llava_bench", "--answers", answers, "--out", tmp_path / "out"]
    words += [word for file in files for word in ("--annotations", file)]
    with running() as fake:
        fake.otherwise = said("8 6\nThe first is better.")
        words += ["--judge-url", fake.url, "--judge-model", MODEL]
        run(*words)
        assert len(fake.bodies) == 1
        assert fake.bodies[0]["temperature"] == 0.2
        assert entry(tmp_path / "out", "llava_bench")["metrics"]["relative"]["value"] == 6 / 8
        run(*words, "--protocol", "both-orders")
        assert len(fake.bodies) == 2, "the first order is known"
    metrics = entry(tmp_path / "out", "llava_bench")["metrics"]
    assert (metrics["relative"]["value"], metrics["position_bias"]["value"]) == (1.0, 2.0)


@pytest.mark.enable_socket
def test_mmvet(tmp_path: Path) -> None:
    row = {"imagename": "a.jpg", "question": "What?", "answer": "x", "capability": ["ocr"]}
    file = write(tmp_path / "mm-vet.json", {"v1_0": row, "v1_1": row | {"capability": ["rec"]}})
    answers = write(tmp_path / "llava.json", {"v1_0": "x", "v1_1": "y"})
    with running() as fake:
        fake.otherwise = lambda body: said("1.0" if text_of(body).endswith("| x | ") else "0.5")
        words = ["mmvet", "--answers", answers, "--annotations", file, "--out", tmp_path / "out"]
        run(*words, "--judge-url", fake.url, "--judge-model", MODEL)
        assert {body["max_tokens"] for body in fake.bodies} == {3}
    metrics = entry(tmp_path / "out", "mmvet")["metrics"]
    assert (metrics["total"]["value"], metrics["ocr/score"]["value"], metrics["rec/score"]["value"]) == (0.75, 1, 0.5)


def test_textvqa_asks_with_and_without_ocr_words(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "abc.jpg")
    row = {"question_id": 0, "image_id": "abc", "question": "What brand?", "answers": ["nokia"] * 10}
    annotations = write(tmp_path / "val.json", {"data": [row]})
    ocr = write(tmp_path / "ocr.json", {"data": [{"image_id": "abc", "ocr_tokens": ["NOKIA", "5G"]}]})

    def asked(protocol: str, *files: Path, suffix: str | None = None) -> str:
        made = PublicBenchmark(
            scorer=SCORERS["textvqa"],
            files=Files(files),
            images=tmp_path / "pictures",
            protocol=protocol,
            suffix=suffix,
        )
        (item,) = made.items()
        return item.prompt.text

    assert "NOKIA" not in asked("official", annotations)
    assert "NOKIA, 5G" in asked("official-ocr", annotations, ocr)
    assert asked("official", annotations, suffix=" One word.") == "What brand? One word."
    assert asked("official", annotations, suffix="") == "What brand?"
    with pytest.raises(UserError, match="found 0 files of OCR words with protocol corrected-ocr"):
        asked("corrected-ocr", annotations)
    with pytest.raises(UserError, match="found 1 files of OCR words with protocol official; accepted"):
        asked("official", annotations, ocr)
    with pytest.raises(UserError, match="found a suffix with protocol official-ocr"):
        asked("official-ocr", annotations, ocr, suffix="?")
