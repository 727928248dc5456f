"""Somebody who asks for a page again and again, as long as the block lasts."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.e2e.lab import Lab

# A new connection for each request: what a Service has to decide is where a connection goes.
_PROGRAM = """
import http.client, sys, time
host, port = sys.argv[1], int(sys.argv[2])
while True:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode().strip()
        print("ok" if answer.status == 200 else "no", body, flush=True)
    except OSError as error:
        print("no", repr(error), flush=True)
    finally:
        connection.close()
    # Some hundred a second: the update has to get a share of the processor as well.
    time.sleep(0.005)
"""


class Visitor:
    def __init__(self, lab: Lab, host: str, port: int) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._lab = lab
        self._place = (host, str(port))
        self._came = threading.Condition()

    def __enter__(self) -> Self:
        self._child = self._lab.start(sys.executable, "-c", _PROGRAM, *self._place)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._reader.join(10)

    def wait_for(self, answer: str, seconds: float = 30) -> None:
        """Until somebody has answered this."""
        with self._came:
            came = self._came.wait_for(lambda: self.answers[answer] > 0, seconds)
        assert came, f"nobody answered {answer!r}: {self.answers}, {self.failures[:5]}"

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            verdict, _, text = line.decode().strip().partition(" ")
            with self._came:
                if verdict == "ok":
                    self.answers[text] += 1
                else:
                    self.failures.append(text)
                self._came.notify_all()
