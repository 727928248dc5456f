"""What a container left as its termination message: in its file, or else at the end of its log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybernetes.kubelet.pod_state import AnyContainer
    from pybernetes.kubelet.runtime.interface import ContainerStatus

MOST_BYTES = 4096
FALLBACK = "FallbackToLogsOnError"
FALLBACK_LINES, FALLBACK_BYTES = 80, 2048


def last_words(container: AnyContainer, status: ContainerStatus, path: Path | None) -> str:
    """Reads files; not for the event loop."""
    text = ""
    if path is not None and container.termination_message_path:
        try:
            with path.open("rb") as file:
                text = file.read(MOST_BYTES).decode(errors="replace")
        except OSError:
            text = ""
    if (
        not text
        and container.termination_message_policy == FALLBACK
        and status.exit_code != 0
        and status.log_path
    ):
        text = _end_of_log(Path(status.log_path))
    return text


def _end_of_log(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            # Each line carries some forty bytes of time and stream.
            file.seek(max(0, size - FALLBACK_BYTES - 64 * FALLBACK_LINES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return ""
    said = b"".join(_content(line) for line in lines[-FALLBACK_LINES:])
    return said[-FALLBACK_BYTES:].decode(errors="replace")


def _content(line: bytes) -> bytes:
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    return parts[3] if parts[2].startswith(b"F") else parts[3].removesuffix(b"\n")
