"""Chat over HTTP with a server that behaves: what is sent, what is kept, what is counted; and chat on this machine."""

import base64
import json
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from chat_server import MODEL, running, said, text_of
from tiny import picture, tiny_policy
from verisight.chat.endpoint import Endpoint, Limits, Prices
from verisight.chat.http import HttpChat
from verisight.chat.local import LocalChat
from verisight.data.files import read_json, read_jsonl
from verisight.data.images import ImageError
from verisight.types import Decoding, ImageRef, Reply, Request, UserError

pytestmark = pytest.mark.enable_socket
KEY = "sk-very-secret-0123456789"
QUESTIONS = [Request(f"q{i}", f"question {i}") for i in range(8)]


@pytest.fixture
def fake():
    with running() as fake:
        fake.otherwise = lambda body: said(f"answer to {text_of(body)}")
        yield fake


@pytest.fixture
def keyed(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)


def chat(fake, folder, **options):
    endpoint = Endpoint(fake.url, MODEL, options.pop("key_env", None), **options.pop("endpoint", {}))
    return HttpChat(endpoint, folder=folder, sleep=options.pop("sleep", lambda seconds: None), **options)


def encoded(format, mode="RGB"):
    buffer = BytesIO()
    Image.new(mode, (5, 4), 1).save(buffer, format=format)
    return buffer.getvalue()


def test_replies_come_in_order_however_many_threads_ask(fake, tmp_path):
    answer = fake.otherwise
    fake.otherwise = lambda body: replace(answer(body), delay=0.1)
    replies = chat(fake, tmp_path, limits=Limits(concurrency=4)).ask(QUESTIONS)
    assert replies == [Reply(f"answer to question {i}") for i in range(8)]
    assert 1 < fake.most_at_once <= 4


def test_what_is_sent(fake, tmp_path, keyed):
    decoding = Decoding(33, temperature=0.5, top_p=0.9, stop=("END",))
    one = chat(
        fake, tmp_path, key_env="JUDGE_KEY", decoding=decoding, endpoint={"tokens_field": "max_completion_tokens"}
    )
    one.ask([Request("q", "Which?", (ImageRef(data=encoded("PNG")), picture(1)), "You judge.")])
    (body,), (headers,) = fake.bodies, fake.headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["path"] == "/v1/chat/completions"
    system, user = body.pop("messages")
    assert body == {
        "model": MODEL, "max_completion_tokens": 33, "temperature": 0.5, "top_p": 0.9, "stop": ["END"],
    }  # fmt: skip
    assert system == {"role": "system", "content": "You judge."}
    shown = [part["image_url"]["url"] for part in user["content"][:2]]
    assert [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in shown] == [
        encoded("PNG"), picture(1).data,
    ]  # fmt: skip
    assert user["content"][2] == {"type": "text", "text": "Which?"}


@pytest.mark.parametrize(
    ("format", "mime"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "png"), ("TIFF", "png")],
)
def test_pictures_go_as_they_are_or_as_png(fake, tmp_path, format, mime):
    chat(fake, tmp_path).ask([Request("q", "?", (ImageRef(data=encoded(format)),))])
    url = fake.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith(f"data:image/{mime};base64,")
    sent = base64.b64decode(url.partition(",")[2])
    assert Image.open(BytesIO(sent)).size == (5, 4)
    assert (sent == encoded(format)) == (format not in ("BMP", "TIFF"))


def test_a_picture_that_cannot_be_decoded_is_never_sent(fake, tmp_path):
    with pytest.raises(ImageError, match="truncated"):
        chat(fake, tmp_path).ask([Request("q", "?", (ImageRef(data=encoded("PNG")[:40]),))])
    assert not fake.bodies


def test_a_restart_pays_nothing_twice(fake, tmp_path):
    chat(fake, tmp_path).ask(QUESTIONS[:3])
    again = chat(fake, tmp_path)
    assert again.ask(QUESTIONS[:4])[3] == Reply("answer to question 3")
    assert len(fake.bodies) == 4
    assert again.totals.num_cached == 3
    assert again.totals.num_requests == 7


def test_equal_questions_are_asked_once(fake, tmp_path):
    one = chat(fake, tmp_path)
    assert one.ask([replace(QUESTIONS[0], uid=f"u{i}") for i in range(3)]) == [Reply("answer to question 0")] * 3
    assert len(fake.bodies) == 1
    assert [row["uid"] for row in read_jsonl(tmp_path / "ledger.jsonl") if row["cached"]] == ["u1", "u2"]


def test_drawn_answers_belong_to_their_uid(fake, tmp_path):
    warm = Decoding(64, temperature=1.0)
    twins = [replace(QUESTIONS[0], uid=f"u{i}") for i in range(3)]
    chat(fake, tmp_path, decoding=warm).ask(twins)
    chat(fake, tmp_path, decoding=warm).ask(twins)
    assert len(fake.bodies) == 3


CHANGES = {
    "text": lambda one: (replace(one, text="other"), {}),
    "system": lambda one: (replace(one, system="other"), {}),
    "picture": lambda one: (replace(one, images=(picture(2),)), {}),
    "no picture": lambda one: (replace(one, images=()), {}),
    "temperature": lambda one: (one, {"decoding": Decoding(512, temperature=0.1)}),
    "tokens": lambda one: (one, {"decoding": Decoding(511, temperature=0.0)}),
    "served": lambda one: (one, {"endpoint": {"tokens_field": "max_completion_tokens"}}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_question_is_asked_anew(fake, tmp_path, change):
    one = Request("q", "?", (picture(1),))
    chat(fake, tmp_path).ask([one])
    other, options = CHANGES[change](one)
    chat(fake, tmp_path, **options).ask([other])
    assert len(fake.bodies) == 2


def test_the_cache_knows_a_picture_by_its_bytes_not_by_what_is_said_of_it(fake, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    chat(fake, tmp_path).ask([Request("q", "?", (ImageRef(path=path, sha256="0" * 64),))])
    chat(fake, tmp_path).ask([Request("q", "?", (ImageRef(data=encoded("PNG")),))])
    assert len(fake.bodies) == 1
    path.write_bytes(picture(3).data)
    chat(fake, tmp_path).ask([Request("q", "?", (ImageRef(path=path, sha256="0" * 64),))])
    assert len(fake.bodies) == 2


def test_the_ledger_adds_up_over_runs(fake, tmp_path):
    prices = Prices(prompt=2.0, completion=10.0)
    chat(fake, tmp_path, prices=prices).ask(QUESTIONS[:2])
    fake.script = [said("uncounted", usage=None)]
    again = chat(fake, tmp_path, prices=prices)
    again.ask(QUESTIONS[:3])
    rows = read_jsonl(tmp_path / "ledger.jsonl")
    assert sorted((row["uid"], row["cached"], row["prompt_tokens"]) for row in rows if row["prompt_tokens"]) == [
        ("q0", False, 10), ("q1", False, 10),
    ]  # fmt: skip
    totals = read_json(tmp_path / "totals.json")
    assert totals.pop("seconds") > 0
    assert totals == {
        "num_requests": 5, "num_cached": 2, "num_failed": 0, "num_attempts": 3, "num_limited": 0, "num_uncounted": 1,
        "prompt_tokens": 20, "completion_tokens": 6, "cost": pytest.approx((20 * 2 + 6 * 10) / 1e6),
    }  # fmt: skip
    assert again.totals.cost == pytest.approx(totals["cost"])


def test_a_half_written_ledger_line_is_no_hindrance(fake, tmp_path):
    chat(fake, tmp_path).ask(QUESTIONS[:2])
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    again = chat(fake, tmp_path)
    again.ask(QUESTIONS[:1])
    assert again.totals.num_requests == 2


@pytest.mark.parametrize("broken", ["[]", "{}", '{"text": 3}'])
def test_a_broken_answer_file_is_said_so(fake, tmp_path, broken):
    chat(fake, tmp_path).ask(QUESTIONS[:1])
    (path,) = (tmp_path / "answers").rglob("*.json")
    path.write_text(broken)
    with pytest.raises(UserError, match="holds no answer"):
        chat(fake, tmp_path).ask(QUESTIONS[:1])


def test_the_key_is_in_no_file_and_no_reply(fake, tmp_path, keyed):
    fake.otherwise = said(f"My key is {KEY}.")
    (reply,) = chat(fake, tmp_path, key_env="JUDGE_KEY").ask(QUESTIONS[:1])
    assert reply.text == "My key is ***."
    assert KEY in fake.headers[0]["authorization"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_requests_a_minute_are_spaced(fake, tmp_path):
    sleeps = []
    chat(fake, tmp_path, limits=Limits(concurrency=1, requests_per_minute=60), sleep=sleeps.append).ask(QUESTIONS[:4])
    assert len(sleeps) == 3
    assert sleeps == pytest.approx([1, 2, 3], abs=0.5)  # nobody really slept, so the queue grows


def test_text_in_parts_is_joined(fake, tmp_path):
    fake.otherwise = said(message={"content": [{"type": "text", "text": "Verdict"}, {"type": "text", "text": ": A"}]})
    assert chat(fake, tmp_path).ask(QUESTIONS[:1]) == [Reply("Verdict: A")]


def test_nothing_to_ask_is_nothing_asked(fake, tmp_path):
    assert chat(fake, tmp_path).ask([]) == []
    assert not fake.bodies


@pytest.mark.parametrize(
    ("base_url", "problem"),
    [
        ("localhost:8000", "scheme"), ("http://", "scheme"), ("ftp://x/v1", "scheme"), ("http://x:port/v1", "address"),
        (f"http://me:{KEY}@host/v1", "holds a user"), (f"http://host/v1?key={KEY}", "query"),
    ],
)  # fmt: skip
def test_addresses_that_are_refused_are_not_repeated(base_url, problem):
    with pytest.raises(UserError, match=problem) as caught:
        Endpoint(base_url, MODEL)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "sk-\nx", "schlüssel"])
def test_a_key_that_is_missing_or_no_key(monkeypatch, value):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match="key_env: environment variable JUDGE_KEY") as caught:
        Endpoint("http://x/v1", MODEL, "JUDGE_KEY").key()
    assert not value or not value.strip() or value not in str(caught.value)


def test_a_key_given_for_a_name_is_not_repeated():
    with pytest.raises(UserError, match="key_env") as caught:
        Endpoint("http://x/v1", MODEL, KEY).key()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"retries": -1}, {"concurrency": 0}, {"requests_per_minute": 0}, {"max_wait": float("nan")}]
)
def test_limits_that_are_none(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        Limits(**bad)


class Recorder:
    """A policy that says what it was asked."""

    def __init__(self, policy):
        self.policy, self.prompts = policy, []

    def sample(self, prompts, **options):
        self.prompts += prompts
        return self.policy.sample(prompts, **options)


def test_local_chat_puts_the_system_text_in_front_and_sees_the_picture():
    policy = Recorder(tiny_policy())
    local = LocalChat(policy, name="tiny", decoding=Decoding(12, temperature=1.0), seed=3)
    asked = [Request(f"q{i}", "What is it?", (picture(i),), "Be short.") for i in range(2)]
    replies = local.ask(asked)
    assert [prompt.text for prompt in policy.prompts] == ["Be short.\n\nWhat is it?"] * 2
    assert [prompt.images for prompt in policy.prompts] == [one.images for one in asked]
    assert local.ask(asked[1:]) == replies[1:], "a reply does not depend on its batch"
    swapped = local.ask([replace(asked[0], images=(picture(9),))])
    assert swapped != replies[:1], "another picture, another reply"


def test_local_chat_names_silence_a_problem():
    class Silent:
        def sample(self, prompts, **options):
            return [[type("Sampled", (), {"text": ""})()] for _ in prompts]

    assert LocalChat(Silent(), name="silent").ask(QUESTIONS[:1]) == [Reply("", "the model said nothing")]


def test_files_of_answers_are_json(fake, tmp_path):
    chat(fake, tmp_path).ask(QUESTIONS[:1])
    (path,) = (tmp_path / "answers").rglob("*.json")
    assert json.loads(path.read_text())["text"] == "answer to question 0"
