"""Chat over HTTP with a server that misbehaves: what is tried again, how long, and what ends a run at once."""

import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Thread

import pytest

from chat_server import MODEL, Served, refused, running, said, text_of
from verisight.chat.endpoint import Endpoint, Limits
from verisight.chat.http import HttpChat
from verisight.chat.pace import Pace, backoff, retry_after
from verisight.data.files import read_jsonl
from verisight.types import Reply, Request, UserError

pytestmark = pytest.mark.enable_socket
KEY = "sk-very-secret-0123456789"
ONE = [Request("q", "question")]


@pytest.fixture
def fake():
    with running() as fake:
        yield fake


@pytest.fixture
def sleeps():
    return []


@pytest.fixture
def chat(fake, tmp_path, sleeps, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)

    def made(*, retries=3, timeout=5.0, served_as=(), max_wait=60.0, url=None):
        endpoint = Endpoint(url or fake.url, MODEL, "JUDGE_KEY", timeout, served_as)
        return HttpChat(endpoint, folder=tmp_path, limits=Limits(retries, max_wait=max_wait), sleep=sleeps.append)

    return made


def no_key_in(folder, *texts):
    return not any(KEY in text for text in [*texts, *(p.read_text() for p in folder.rglob("*") if p.is_file())])


WELL = said("Verdict: A").body
PASSING = {
    "429": refused(429, "slow down"),
    "500": refused(500, "oops"),
    "503 without a body": Served(b"", 503),
    "408": refused(408),
    "html": Served(b"<html>502</html>", headers={"Content-Type": "text/html"}),
    "html as json": Served(b"<html>502</html>"),
    "half json": Served(WELL[: len(WELL) // 2]),
    "body cut off": Served(WELL, cut=True),
    "nothing": Served(b""),
    "null": Served(b"null"),
    "list": Served(b"[]"),
    "number": Served(b"17"),
    "deep": Served(b"[" * 100_000),
    "not utf-8": Served(b"\xff\xfe\x00"),
    "no choices": Served(b'{"model": "judge-1"}'),
    "empty choices": Served(b'{"model": "judge-1", "choices": []}'),
    "strange choices": Served(b'{"model": "judge-1", "choices": {"0": 1}}'),
    "choice without message": Served(b'{"model": "judge-1", "choices": [{}]}'),
    "no text": said(None),
    "blank text": said("  \n"),
    "number for text": said(message={"content": 3}),
    "broken gzip": Served(b"no gzip", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again(fake, chat, sleeps, tmp_path, name):
    fake.script = [PASSING[name]] * 2
    assert chat().ask(ONE) == [Reply("Verdict: A")]
    assert len(fake.bodies) == 3
    (row,) = read_jsonl(tmp_path / "ledger.jsonl")
    assert (row["attempts"], row["problem"], row["prompt_tokens"]) == (3, "", 10)
    assert row["num_limited"] == (2 if name == "429" else 0)
    assert row["waited"] == pytest.approx(sum(sleeps), abs=0.01)


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_a_problem_of_one_request(fake, chat, tmp_path, name):
    fake.otherwise = lambda body: PASSING[name] if "bad" in text_of(body) else said("Verdict: B")
    replies = chat(retries=2).ask([Request("bad", "bad"), Request("good", "good")])
    assert replies[0].text == ""
    assert "(3 attempts)" in replies[0].problem
    assert replies[1] == Reply("Verdict: B")
    assert not [path for path in (tmp_path / "answers").rglob("*.json") if "Verdict: B" not in path.read_text()]
    assert len(chat().ask([Request("bad", "bad")])) == 1, "a failure is not kept"
    assert len(fake.bodies) == 3 + 1 + 4


def test_a_body_that_drips_in_is_late_as_a_whole(fake, chat):
    drip = said("late")
    drip.pause = 0.15
    fake.script = [drip]
    assert chat(timeout=0.5, retries=1).ask(ONE) == [Reply("Verdict: A")]
    fake.otherwise = drip
    [reply] = chat(timeout=0.5, retries=0).ask([Request("other", "other")])
    assert reply.problem == "no whole answer in 0.5 s (1 attempts)"


def test_a_body_without_end_is_cut_off(fake, chat, monkeypatch):
    monkeypatch.setattr("verisight.chat.http._MAX_BODY", 1000)
    fake.script = [Served(WELL)]
    bot = chat(retries=0)
    assert bot.ask(ONE) == [Reply("Verdict: A")]
    fake.otherwise = Served(WELL + b" " * 100_000)
    [reply] = bot.ask([Request("other", "other")])
    assert reply.problem == "an answer of more than 1,000 bytes (1 attempts)"


def test_a_server_that_is_late_is_tried_again(fake, chat):
    slow = said("late")
    slow.delay = 0.5
    fake.script = [slow, slow]
    start = time.monotonic()
    assert chat(timeout=0.1).ask(ONE) == [Reply("Verdict: A")]
    assert time.monotonic() - start < 0.5
    fake.otherwise = slow
    (reply,) = chat(timeout=0.05, retries=1).ask([Request("q", "other")])
    assert reply == Reply("", "no answer in 0.05 s (2 attempts)")


def test_retry_after_is_honoured(fake, chat, sleeps):
    limited = refused(429, "slow down")
    limited.headers = {"Retry-After": "7"}
    fake.script = [limited]
    assert chat().ask(ONE) == [Reply("Verdict: A")]
    assert sleeps[0] == 7
    assert chat().totals.num_limited == 1


def test_a_server_that_asks_for_too_long_a_wait_is_not_asked_again(fake, chat, sleeps):
    limited = refused(429, "slow down")
    limited.headers = {"Retry-After": "3600"}
    fake.otherwise = limited
    (reply,) = chat(max_wait=30).ask(ONE)
    assert reply.problem == ("429: slow down; asked to wait 3600 s, max_wait is 30 s")
    assert len(fake.bodies) == 1
    assert not sleeps


def test_others_wait_too_while_the_server_wants_rest():
    sleeps = []
    pace = Pace(None, sleep=sleeps.append)
    assert pace.wait() == 0
    pace.hold(5)
    assert pace.wait() == pytest.approx(5, abs=0.5)
    assert sleeps == [pytest.approx(5, abs=0.5)]


def test_waits_double_are_spread_and_bounded():
    waits = [backoff(n, seed=0, key="a", longest=8.0) for n in range(12)]
    for n, wait in enumerate(waits):
        assert min(8.0, 0.5 * 2**n) / 2 <= wait <= min(8.0, 0.5 * 2**n)
    assert waits == [backoff(n, seed=0, key="a", longest=8.0) for n in range(12)]
    assert waits != [backoff(n, seed=0, key="b", longest=8.0) for n in range(12)]
    assert waits != [backoff(n, seed=1, key="a", longest=8.0) for n in range(12)]
    assert backoff(10**6, seed=0, key="a", longest=8.0) <= 8.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("3", 3), (" 3 ", 3), ("0.5", 0.5), ("-1", 0), ("soon", None), ("nan", None), ("inf", None),
        ("", None), ("9" * 400, 999999999999), ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_headers(header, seconds):
    assert retry_after(header) == seconds


def test_retry_after_dates():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after(later) == pytest.approx(90, abs=3)


ENDING = {
    "wrong key": (refused(401, f"Incorrect API key provided: {KEY}"), "key_env: .* refused the key in JUDGE_KEY"),
    "forbidden": (refused(403), "key_env"),
    "wrong address": (Served(b"not found", 404), "model, base_url"),
    "wrong model": (refused(404, "no such model", code="model_not_found"), "model, base_url"),
    "wrong model, 400": (refused(400, "no such model", param="model"), "model, base_url"),
    "unknown setting": (refused(400, "use max_completion_tokens", param="max_tokens"), "max_tokens: "),
    "no quota": (refused(429, "pay first", code="insufficient_quota"), "key_env: the account"),
    "another model": (said(model="judge-2"), "model: .* answered as 'judge-2'"),
    "a smaller model": (said(model="judge-1-mini"), "answered as 'judge-1-mini'"),
}


@pytest.mark.parametrize("name", ENDING)
def test_what_no_request_can_get_ends_the_run_at_once(fake, chat, sleeps, tmp_path, name):
    fake.otherwise, problem = ENDING[name]
    with pytest.raises(UserError, match=problem) as caught:
        chat().ask([Request(f"q{i}", f"question {i}") for i in range(100)])
    assert len(fake.bodies) <= 12, "those under way, not all hundred"
    assert not sleeps
    assert no_key_in(tmp_path, "".join(traceback.format_exception(caught.value)))
    assert read_jsonl(tmp_path / "ledger.jsonl")[0]["problem"]


@pytest.mark.parametrize(
    "model", [MODEL, "JUDGE-1", "judge-1-2026-08-06", "judge-1@20260806", "judge-1-latest", "other", None]
)
def test_names_under_which_a_model_may_answer(fake, chat, model):
    fake.otherwise = said(model=model)
    assert chat(served_as=("other",)).ask(ONE) == [Reply("Verdict: A")]


@pytest.mark.parametrize(
    ("served", "problem"),
    [
        (refused(400, "content policy"), "400: "),
        (refused(413, "too large"), "413: "),
        (refused(422, "cannot"), "422: "),
        (said(None, message={"refusal": "I cannot help."}), "refused: I cannot help."),
        (said(None, finish="content_filter"), "content filter"),
        (said("", finish="length"), "raise max_new_tokens"),
    ],
)
def test_what_trying_again_cannot_mend_is_asked_once(fake, chat, served, problem):
    fake.otherwise = served
    (reply,) = chat().ask(ONE)
    assert problem in reply.problem
    assert not reply.text
    assert len(fake.bodies) == 1


def test_a_paid_refusal_is_kept(fake, chat):
    fake.otherwise = said(None, message={"refusal": "no"})
    assert chat().ask(ONE) == chat().ask(ONE)
    assert len(fake.bodies) == 1
    assert chat().totals.prompt_tokens == 10


def test_a_key_that_a_server_repeats_is_hidden(fake, chat, tmp_path):
    fake.otherwise = refused(500, f"failed for {KEY}")
    (reply,) = chat(retries=0).ask(ONE)
    assert "***" in reply.problem
    assert no_key_in(tmp_path, reply.problem)


def test_a_placeholder_for_a_key_hides_no_words(fake, tmp_path, monkeypatch):
    fake.otherwise = said("EMPTY is the cage. Verdict: A")
    monkeypatch.setenv("JUDGE_KEY", "EMPTY")
    assert (
        HttpChat(Endpoint(fake.url, MODEL, "JUDGE_KEY"), folder=tmp_path)
        .ask(ONE)[0]
        .text.startswith("EMPTY is the cage")
    )


def test_nobody_there(chat, sleeps, tmp_path):
    with pytest.raises(UserError, match=r"base_url: 127.0.0.1:9 was not reached in 3 attempts"):
        chat(url="http://127.0.0.1:9/v1", retries=2).ask(ONE)
    assert len(sleeps) == 2


def test_what_was_answered_before_a_run_ended_is_kept(fake, chat):
    fake.script = [said("one"), said("two"), refused(401)]
    endless = chat()
    endless.ask([Request("a", "a")])
    endless.ask([Request("b", "b")])
    with pytest.raises(UserError):
        endless.ask([Request("c", "c")])
    assert chat().ask([Request("a", "a"), Request("b", "b")]) == [Reply("one"), Reply("two")]
    assert len(fake.bodies) == 3


def test_two_writers_of_one_folder_leave_whole_files(fake, chat, tmp_path):
    chats = [chat(), chat()]
    asked = [[Request(f"{n}-{i}", f"question {i}") for i in range(10)] for n in range(2)]
    threads = [Thread(target=one.ask, args=(some,)) for one, some in zip(chats, asked, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_jsonl(tmp_path / "ledger.jsonl")) == 20
    assert chat().ask(asked[0]) == [Reply("Verdict: A")] * 10
