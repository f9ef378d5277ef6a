"""Chat over HTTP: any OpenAI-compatible server, asked patiently, at a bounded price, never twice for the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import openai

from verisight.chat import bodies
from verisight.chat.bodies import BadBody, Said
from verisight.chat.endpoint import Endpoint, Limits, Prices
from verisight.chat.ledger import Answers, Entry, Ledger, Totals, cost
from verisight.chat.pace import Pace, backoff, retry_after
from verisight.types import Decoding, Reply, Request, UserError

_LIMITS = Limits()
_RETRIED = (408, 409, 425, 429)  # besides everything from 500 on
_SETTINGS = ("model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop")
_SECRET = 8  # characters from which on a key is one
_MAX_BODY = 1 << 24  # bytes of an answer
_MAX_SHOWN = 300  # characters of a server's words


class _Failed(Exception):
    """An attempt that gave no answer. `wait`: seconds that the server asks for; `final`: no use in trying again."""

    def __init__(self, problem: str, *, wait: float | None = None, limited: bool = False, final: bool = False) -> None:
        super().__init__(problem)
        self.problem, self.wait, self.limited, self.final = problem, wait, limited, final


@dataclass(slots=True)
class _Spent:
    """What a request took so far: fields of a ledger's entry."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    attempts: int = 0
    num_limited: int = 0
    waited: float = 0.0
    problem: str = ""


class HttpChat:
    """A model behind an OpenAI-compatible address (`types.Chat`).

    Answers are kept in `folder` (of one HttpChat at a time), so a run that was killed, or the same question in another
    run, pays nothing twice; every request is a line of `folder`/ledger.jsonl. Time-outs, lost connections, 408, 409,
    425, 429, server errors and bodies that hold no answer are tried again, `limits.retries` times, after waits that
    double and are never shorter than a Retry-After header asks. What one request cannot get is its reply's problem;
    what no request can get (key, model, address, a setting) is a UserError at once. `sleep` waits so many seconds.
    """

    def __init__(
        self, endpoint: Endpoint, *, folder: Path, decoding: Decoding = Decoding(512, temperature=0.0),
        limits: Limits = _LIMITS, prices: Prices | None = None, seed: int = 0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:  # fmt: skip
        self._endpoint, self._decoding, self._limits = endpoint, decoding, limits
        self._prices, self._seed, self._sleep = prices, seed, sleep
        self._key = endpoint.key()
        self._client = openai.OpenAI(
            base_url=endpoint.base_url, api_key=self._key or "none", timeout=endpoint.timeout, max_retries=0
        )
        self._answers, self._ledger = Answers(folder), Ledger(folder)
        self._pace = Pace(limits.requests_per_minute, sleep=sleep)
        self._reached = False

    @property
    def name(self) -> str:
        """The model and where it is."""
        return f"{self._endpoint.model}@{self._endpoint.host}"

    @property
    def totals(self) -> Totals:
        """What was asked and paid so far, earlier runs in the same folder included."""
        return self._ledger.totals

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply each, in order. Equal questions are asked once.

        Raises:
            UserError: a picture that cannot be used, or what the class says. What was answered before is kept.
        """
        keys = [bodies.key(request, self._endpoint, self._decoding) for request in requests]
        first: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            first.setdefault(key, request)
        stop = Event()
        pool = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="chat")
        try:
            futures = {key: pool.submit(self._answer, key, request, stop) for key, request in first.items()}
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            self._ledger.write_totals()
        replies = [futures[key].result() for key in keys]
        for key, request, reply in zip(keys, requests, replies, strict=True):
            if first[key] is not request:
                self._ledger.add(self._entry(request, cached=True, problem=reply.problem))
        self._ledger.write_totals()
        return replies

    def _entry(self, request: Request, *, cached: bool = False, problem: str = "") -> Entry:
        return Entry(request.uid, self._endpoint.model, cached=cached, problem=problem)

    def _answer(self, key: str, request: Request, stop: Event) -> Reply:
        said = self._answers.find(key)
        if said is not None:
            self._ledger.add(self._entry(request, cached=True, problem=said.problem))
            return Reply(said.text, said.problem)
        body = bodies.question(request, self._endpoint, self._decoding)
        spent = _Spent()
        start = time.monotonic()
        try:
            said = self._insist(key, body, spent, stop)
            if said is None:
                return Reply("", spent.problem)
            self._answers.keep(key, said)
            return Reply(said.text, said.problem)
        except UserError as error:
            spent.problem = str(error)
            raise
        finally:
            spent.waited = round(spent.waited, 3)
            if spent.attempts:
                seconds = round(time.monotonic() - start, 3)
                self._ledger.add(replace(self._entry(request), **asdict(spent), seconds=seconds))

    def _insist(self, key: str, body: dict[str, Any], spent: _Spent, stop: Event) -> Said | None:
        """Ask until there is an answer, or no use in asking. What it took is noted in `spent`."""
        longest = self._limits.max_wait
        for attempt in range(self._limits.retries + 1):
            if stop.is_set():
                spent.problem = spent.problem or "not asked: another request ended the run"
                return None
            spent.waited += self._pace.wait()
            spent.attempts += 1
            try:
                said = self._once(body)
            except _Failed as failed:
                spent.problem, spent.num_limited = failed.problem, spent.num_limited + failed.limited
                if failed.wait is not None and failed.wait > longest:
                    spent.problem += f"; asked to wait {failed.wait:.0f} s, max_wait is {longest:.0f} s"
                    return None
                if failed.final:
                    return None
                if attempt < self._limits.retries:
                    pause = max(failed.wait or 0.0, backoff(attempt, seed=self._seed, key=key, longest=longest))
                    if failed.limited:
                        self._pace.hold(pause)
                    self._sleep(pause)
                    spent.waited += pause
                continue
            spent.prompt_tokens, spent.completion_tokens = said.prompt_tokens, said.completion_tokens
            spent.cost, spent.problem = cost(said, self._prices), said.problem
            self._check_model(said)
            return said
        if not self._reached:
            raise UserError(
                f"base_url: {self._endpoint.host} was not reached in {spent.attempts} attempts ({spent.problem}); "
                "accepted: the address of a running OpenAI-compatible server, such as http://localhost:8000/v1"
            )
        spent.problem += f" ({spent.attempts} attempts)"
        return None

    def _once(self, body: dict[str, Any]) -> Said:
        """One attempt. Raises _Failed, or UserError for what no request can get."""
        try:
            start = time.monotonic()
            with self._client.chat.completions.with_streaming_response.create(**body) as response:
                self._reached = True
                told = self._read(response.iter_bytes(), start=start)
            said = bodies.answer(told)
        except BadBody as error:
            raise _Failed(self._shown(str(error))) from None
        except openai.APITimeoutError as error:
            self._reached |= _connected(error)
            raise _Failed(f"no answer in {self._endpoint.timeout:g} s") from None
        except openai.APIStatusError as error:
            self._reached = True
            raise self._refused(error) from None
        except openai.OpenAIError as error:
            self._reached |= _connected(error)
            raise _Failed(self._shown(f"connection failed: {error.__cause__ or error}")) from None
        return said._replace(text=self._hidden(said.text), problem=self._hidden(said.problem))

    def _read(self, pieces: Iterator[bytes], *, start: float) -> str:
        """The whole body. Time-outs of the connection are between two pieces, that of a question is over all of it."""
        found = bytearray()
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:  # of the transport below openai, which wraps no error of a body
                late = "Timeout" in type(error).__name__
                told = f"no answer in {self._endpoint.timeout:g} s" if late else f"connection failed: {error}"
                raise _Failed(self._shown(told)) from None
            if piece is None:
                return found.decode(errors="replace")
            found += piece
            if len(found) > _MAX_BODY:
                raise _Failed(f"an answer of more than {_MAX_BODY:,} bytes")
            if time.monotonic() - start > self._endpoint.timeout:
                raise _Failed(f"no whole answer in {self._endpoint.timeout:g} s")

    def _check_model(self, said: Said) -> None:
        if said.model and not self._endpoint.is_asked(said.model):
            raise UserError(
                f"model: {self._endpoint.host} was asked for {self._endpoint.model!r} and answered as "
                f"{self._shown(said.model)!r}; accepted: that name, with a date or version behind it, or a name in "
                "served_as"
            )

    def _refused(self, error: openai.APIStatusError) -> Exception:
        """What a status other than 200 means."""
        status, host, asked = error.status_code, self._endpoint.host, self._endpoint.model
        words = error.message.removeprefix(f"Error code: {status}").removeprefix(" - ")
        told = self._shown(f"{status}: {words}" if words else f"{status}")
        if status in (401, 403):
            sent = f"the key in {self._endpoint.key_env}" if self._key else "a request without a key"
            return UserError(f"key_env: {host} refused {sent} ({told}); accepted: a key that may use {asked!r}")
        if status == 404 or error.param == "model" or error.code == "model_not_found":
            return UserError(f"model, base_url: {host} has no model {asked!r} at this address ({told})")
        if error.code == "insufficient_quota":
            return UserError(f"key_env: the account behind the key has no quota left ({told})")
        if status == 400 and error.param in _SETTINGS:
            return UserError(f"{error.param}: {host} does not take it as it is set ({told})")
        if status not in _RETRIED and status < 500:
            return _Failed(told, final=True)
        return _Failed(told, wait=retry_after(error.response.headers.get("retry-after")), limited=status == 429)

    def _shown(self, text: str) -> str:
        text = " ".join(self._hidden(text).split())
        return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."

    def _hidden(self, text: str) -> str:
        """Without the key, should a server repeat it. What is shorter than 8 characters ("EMPTY") is no secret."""
        return text.replace(self._key, "***") if len(self._key) >= _SECRET else text


def _connected(error: openai.OpenAIError) -> bool:
    """Whether a connection was there before it was lost: its cause is no ConnectError and no ConnectTimeout."""
    return not type(error.__cause__).__name__.startswith("Connect")
