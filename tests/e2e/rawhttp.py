"""Requests to the API server that kubectl would never send."""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tests.e2e.lab import Lab

_PROGRAM = """
import http.client, json, ssl, sys
host, port, ca, certificate, key, method, path, content_type, size = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=60)
headers = {"Content-Type": content_type, "Content-Length": size}
connection.putrequest(method, path)
for name, value in headers.items():
    connection.putheader(name, value)
connection.endheaders()
try:
    while chunk := sys.stdin.buffer.read(65536):
        connection.send(chunk)
except OSError:
    pass  # who refuses a body need not read it
answer = connection.getresponse()
print(answer.status)
sys.stdout.write(answer.read().decode())
"""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    text: str

    @property
    def message(self) -> str:
        """The sentence of a Status."""
        return str(json.loads(self.text)["message"])

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def send(
    lab: Lab, method: str, path: str, body: bytes = b"", *, content_type: str = "application/json"
) -> Answer:
    """One request with the administrator's certificate, from inside the lab's namespace."""
    host, port, *paths = credentials(lab)
    ran = lab.run(
        sys.executable, "-c", _PROGRAM, host, port, *paths, method, path, content_type,
        str(len(body)), stdin=body, timeout=90,
    )  # fmt: skip
    code, _, text = ran.out.partition("\n")
    return Answer(int(code), text)


def credentials(lab: Lab) -> tuple[str, str, str, str, str]:
    """Host and port of the server; files with its CA, the administrator's certificate and key."""
    config = yaml.safe_load((lab.data_dir / "kubeconfig").read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    files = {
        "ca": cluster["certificate-authority-data"],
        "certificate": user["client-certificate-data"],
        "key": user["client-key-data"],
    }
    paths = []
    for name, encoded in files.items():
        file = lab.directory / f"raw.{name}"
        file.write_bytes(base64.b64decode(encoded))
        paths.append(str(file))
    return host, port, paths[0], paths[1], paths[2]
