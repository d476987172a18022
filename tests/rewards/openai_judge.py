"""An OpenAI-compatible audio judge in a process of its own, with faults to order.

P(yes) comes from the sound itself: the share of energy in the band that the caption names. Run as
a program it serves on a free port and prints it; `RunningJudge` starts it and talks to it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import soundfile

BANDS_HZ = {"hum": (40, 300), "dog": (300, 1500), "rain": (2000, 7900)}
TOKEN_IDS = {"Yes": 11, "No": 12, "yes": 13, "no": 14, " Yes": 15, " No": 16, "The": 17}
MODEL = "band-judge"


@dataclass
class Orders:
    """What the server is to do; faults are taken in turn, by caption or by ``*``."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    knows_ids: bool = True
    """As vLLM: /tokenize, and log-probabilities of ids asked for."""
    work_s: float = 0.0
    """How long each answer takes."""
    shares: dict[str, float] = field(default_factory=lambda: {"Yes": 0.97, "No": 0.97})
    """How much of P(yes) and P(no) each spelling gets."""


def band_share(samples: np.ndarray, sample_rate_hz: int, caption: str) -> float:
    """Share of the energy in the band that the caption names."""
    power = np.abs(np.fft.rfft(samples.astype(np.float64))) ** 2
    frequency_hz = np.fft.rfftfreq(len(samples), 1 / sample_rate_hz)
    low_hz, high_hz = next(band for word, band in BANDS_HZ.items() if word in caption)
    inside = (frequency_hz >= low_hz) & (frequency_hz < high_hz)
    return float(power[inside].sum() / power.sum())


def yes_probability(share: float) -> float:
    return 1 / (1 + math.exp(-8 * (share - 0.5)))


def token_probabilities(share: float, orders: Orders) -> dict[str, float]:
    """Over the whole vocabulary: the answers, and words that are none."""
    p_yes = yes_probability(share)
    found = {
        text: part * (p_yes if text.strip().lower() == "yes" else 1 - p_yes)
        for text, part in orders.shares.items()
    }
    left = 1 - sum(found.values())
    weights = [0.9**count for count in range(60)]
    words = {f"w{count}": left * weight / sum(weights) for count, weight in enumerate(weights)}
    return found | words


class Judge(ThreadingHTTPServer):
    """State shared by the requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.lock = threading.Lock()
        self.reset(Orders())

    def reset(self, orders: Orders) -> None:
        self.orders = orders
        self.faults = defaultdict(deque, {key: deque(f) for key, f in orders.faults.items()})
        self.seen: dict[str, Any] = {
            "paths": Counter(), "now": 0, "most_at_once": 0, "times_s": [],
            "bodies": [], "keys": [], "rates_hz": [],
        }  # fmt: skip

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that give up in the middle of a reply are part of the tests."""

    def next_fault(self, caption: str) -> str:
        with self.lock:
            for key in (caption, "*"):
                if self.faults[key]:
                    return self.faults[key].popleft()
        return "ok"


class Answer(BaseHTTPRequestHandler):
    """One connection."""

    server: Judge
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.reply(200, self.server.seen)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/orders":
            self.server.reset(Orders(**body))
            return self.reply(200, {})
        seen, lock = self.server.seen, self.server.lock
        with lock:
            seen["paths"][self.path] += 1
            seen["now"] += 1
            seen["most_at_once"] = max(seen["most_at_once"], seen["now"])
            seen["times_s"].append(time.monotonic())
            seen["keys"].append(self.headers.get("Authorization"))
        try:
            self.answer(body)
        finally:
            with lock:
                seen["now"] -= 1

    def answer(self, body: dict[str, Any]) -> None:
        if self.path == "/tokenize" and self.server.orders.knows_ids:
            text = body["prompt"]
            tokens = [TOKEN_IDS[text]] if text in TOKEN_IDS else [ord(sign) for sign in text]
            return self.reply(200, {"count": len(tokens), "tokens": tokens})
        if self.path != "/v1/chat/completions":
            return self.refuse(404, "Not Found")
        if body["model"] != MODEL:
            return self.refuse(404, f"The model `{body['model']}` does not exist.")
        time.sleep(self.server.orders.work_s)
        self.chat(body)

    def chat(self, body: dict[str, Any]) -> None:
        parts = {part["type"]: part for part in body["messages"][-1]["content"]}
        question = parts["text"]["text"]
        data = base64.b64decode(parts["input_audio"]["input_audio"].pop("data"), validate=True)
        samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32")
        self.server.seen["bodies"].append(body)
        self.server.seen["rates_hz"].append(rate_hz)
        caption = question.partition(": ")[2].partition("?")[0]
        probabilities = token_probabilities(
            band_share(samples, rate_hz, caption), self.server.orders
        )
        fault, _, value = self.server.next_fault(caption).partition(":")
        getattr(self, f"send_{fault}")(body, probabilities, value)

    def send_ok(self, body: dict[str, Any], probabilities: dict[str, float], _: str) -> None:
        ranked = sorted(probabilities, key=lambda text: -probabilities[text])
        listed = ranked[: body["top_logprobs"]]
        by_id = self.server.orders.knows_ids and "logprob_token_ids" in body
        if by_id:
            texts = {token: text for text, token in TOKEN_IDS.items()}
            asked = [texts[token] for token in body["logprob_token_ids"]]
            listed = ranked[:1] + [text for text in asked if text != ranked[0]]
        names = {text: f"token_id:{TOKEN_IDS.get(text, 99)}" if by_id else text for text in listed}
        top = [
            {"token": names[text], "logprob": log(probabilities.get(text, 0.0)), "bytes": None}
            for text in listed
        ]
        self.send_logprobs({"content": [top[0] | {"top_logprobs": top}]})

    def send_logprobs(self, logprobs: Any) -> None:
        message = {"role": "assistant", "content": "?"}
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "length"}
        self.reply(200, {"object": "chat.completion", "choices": [choice]})

    def send_status(self, body: Any, probabilities: Any, value: str) -> None:
        status, _, wait = value.partition(",")
        text = f"made to fail, key {self.headers.get('Authorization')}"
        self.refuse(int(status), text, {"Retry-After": wait} if wait else {})

    def send_slow(self, body: Any, probabilities: Any, value: str) -> None:
        time.sleep(float(value))
        self.send_ok(body, probabilities, "")

    def send_garbage(self, *_: Any) -> None:
        self.reply_bytes(200, b"<html>it works</html>")

    def send_endless(self, *_: Any) -> None:
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def send_silent(self, *_: Any) -> None:
        self.send_logprobs(None)

    def send_nan(self, *_: Any) -> None:
        self.send_logprobs({"content": [{"token": "Yes", "logprob": math.nan, "top_logprobs": []}]})

    def send_missing(self, body: Any, probabilities: dict[str, float], _: str) -> None:
        self.send_ok(body, {text: p for text, p in probabilities.items() if text[0] == "w"}, "")

    def send_close(self, *_: Any) -> None:
        self.close_connection = True
        self.connection.close()

    def refuse(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"error": {"message": text, "code": status}}, headers)

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.reply_bytes(status, json.dumps(body).encode(), headers)

    def reply_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def log(probability: float) -> float:
    """As vLLM: -9999 in place of minus infinity, which JSON cannot say."""
    return math.log(probability) if probability > 0 else -9999.0


class RunningJudge:
    """The server, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def order(self, orders: Orders) -> None:
        """Forget what was seen, and behave like this from now on."""
        self._ask("POST", "/orders", json.dumps(asdict(orders)))

    @property
    def seen(self) -> dict[str, Any]:
        """What came in since the last orders."""
        found: dict[str, Any] = json.loads(self._ask("GET", "/seen"))
        return found

    @property
    def num_questions(self) -> int:
        """Chat completions asked for."""
        return int(self.seen["paths"].get("/v1/chat/completions", 0))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        finally:
            connection.close()


if __name__ == "__main__":
    judge = Judge()
    sys.stdout.write(f"{judge.server_address[1]}\n")
    sys.stdout.flush()
    judge.serve_forever()
