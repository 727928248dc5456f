"""Our own containerd: found or started, watched over, and removed without a trace.

Started when no runtime is there already. It gets directories, a socket and a configuration of its
own below the data directory (see `containerd_config`), so it never meets another containerd.

Rules:
- Containers outlive containerd (their shims hold them), and containerd may outlive us: a restarted
  kubelet adopts the containerd it finds, if its configuration is still the one wanted.
- When it dies it is started again, with growing pauses.
- Only processes known by id are ever signalled: containerd itself, and shims that name our socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pybernetes.aio.backoff import Backoff
from pybernetes.kubelet.runtime import linux
from pybernetes.kubelet.runtime.containerd_config import Layout, config_text, hosts_text
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError, RuntimeUnavailable
from pybernetes.kubelet.runtime.ociimage import archive
from pybernetes.kubelet.runtime.pauseimage import PAUSE_IMAGE_NAME, pause_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

log = logging.getLogger(__name__)

# Where the runtimes of distributions listen.
USUAL_SOCKETS = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/crio/crio.sock"),
    Path("/run/cri-dockerd.sock"),
)
CNI_BIN_DIRECTORIES = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
# Without these no pod gets a network, whatever the configuration.
NEEDED_CNI_PLUGINS = ("loopback",)

# Program → Debian package.
NEEDED_PROGRAMS = {"containerd": "containerd", "ctr": "containerd", "runc": "runc"}

# sun_path holds 108 bytes, the last one zero.
LONGEST_SOCKET_PATH = 107
LOG_LIMIT_BYTES = 10 * 1024 * 1024

START_TIME = timedelta(seconds=30)
KNOWN_TIME = timedelta(seconds=10)
STOP_TIME = timedelta(seconds=10)
RESTART = Backoff(timedelta(milliseconds=200), timedelta(seconds=30), jitter=0.2)


# A line of `ctr images import`, once for every name.
UNPACKED = re.compile(r"^unpacking (\S+) \(", re.MULTILINE)


class ContainerdProblem(ContainerRuntimeError):
    """containerd cannot be used here; the text says what to do."""


def find_socket(candidates: Sequence[Path] = USUAL_SOCKETS) -> Path | None:
    """The first socket on which somebody listens."""
    for path in candidates:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            with suppress(OSError):
                probe.connect(str(path))
                return path
    return None


def find_cni_bin_dir(candidates: Sequence[Path] = CNI_BIN_DIRECTORIES) -> Path | None:
    for path in candidates:
        if all((path / name).exists() for name in NEEDED_CNI_PLUGINS):
            return path
    return None


def what_is_missing(cni_bin_dir: Path | None = None) -> str:
    """One sentence saying what to install to start containerd here; empty if nothing."""
    absent = {name: package for name, package in NEEDED_PROGRAMS.items() if not shutil.which(name)}
    packages, names = list(dict.fromkeys(absent.values())), list(absent)
    if (cni_bin_dir or find_cni_bin_dir()) is None:
        packages.append("containernetworking-plugins")
        names.append("the CNI plugins")
    if not names:
        return ""
    verb = "is" if len(names) == 1 and absent else "are"
    subject = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{subject} {verb} not installed: apt-get install {' '.join(packages)}"


@dataclass(frozen=True, slots=True)
class ContainerdOptions:
    """How our containerd is to be run."""

    directory: Path
    cni_conf_dir: Path
    cni_bin_dir: Path | None = None
    """None: where distributions put the plugins."""
    plain_http_registries: tuple[str, ...] = ()
    """Registries ("127.0.0.1:5000") that are spoken to without TLS."""
    network_namespace: Path | None = None
    """Run containerd, and with it CNI and the stream server, in this network namespace."""
    pause_image: str = ""
    """Use this instead of building one."""


class Containerd:
    """An async context manager: inside it, containerd runs, answers, and has a pause image.

    Leaving it stops containerd, but no container.
    """

    def __init__(self, options: ContainerdOptions, *, random: Random) -> None:
        self._options = options
        self._random = random
        self._layout = Layout(options.directory)
        # The running containerd, ours by birth or adoption.
        self._process: linux.ProcessHandle | None = None
        # Both set while the context is entered.
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: asyncio.Task[None] | None = None
        # How often it had to be started again.
        self._restarts = 0

    @property
    def socket_path(self) -> str:
        return str(self._layout.socket)

    @property
    def log_path(self) -> Path:
        return self._layout.log

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def restarts(self) -> int:
        return self._restarts

    async def __aenter__(self) -> Containerd:
        self._check_machine()
        unchanged = self._prepare()
        try:
            await self._start_or_adopt(may_adopt=unchanged)
            await self._provide_pause_image()
        except BaseException:
            await self._stop_process()
            raise
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._watching = self._tasks.create_task(self._run_watch(), name="containerd")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        assert self._watching is not None
        self._watching.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            await self._stop_process()

    # --- starting ---------------------------------------------------------------------------------

    def _check_machine(self) -> None:
        machine = linux.look_at_machine()
        if not machine.is_root:
            raise ContainerdProblem(
                "running containers needs root: run as root, or use --simulate for simulated nodes"
            )
        if missing := what_is_missing(self._options.cni_bin_dir):
            raise ContainerdProblem(missing)
        if len(os.fsencode(self._layout.socket)) + len(".ttrpc") > LONGEST_SOCKET_PATH:
            raise ContainerdProblem(
                f"the path {self._layout.socket} is too long for a socket: "
                "choose a shorter --data-dir"
            )
        if machine.cgroups is linux.CgroupMode.NONE:
            log.warning("no usable cgroups: resource limits of containers are not enforced")

    def _prepare(self) -> bool:
        """Write directories and configuration; whether a containerd running here may stay."""
        options, layout = self._options, self._layout
        for directory in (layout.root, layout.state, layout.temporary, layout.registries):
            directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        cni_bin_dir = options.cni_bin_dir or find_cni_bin_dir()
        assert cni_bin_dir is not None
        text = config_text(
            layout,
            linux.look_at_machine(),
            # Without overlay (old kernels, odd filesystems) every layer is copied.
            snapshotter="overlayfs" if linux.overlay_works(layout.root) else "native",
            cni_conf_dir=options.cni_conf_dir,
            cni_bin_dir=cni_bin_dir,
            pause_image=options.pause_image or PAUSE_IMAGE_NAME,
        )
        unchanged = layout.config.exists() and layout.config.read_text() == text
        layout.config.write_text(text)
        # Read by containerd at every pull, so no restart is needed for these.
        for address in options.plain_http_registries:
            hosts = layout.registries / address / "hosts.toml"
            hosts.parent.mkdir(exist_ok=True)
            hosts.write_text(hosts_text(address))
        return unchanged

    async def _start_or_adopt(self, *, may_adopt: bool) -> None:
        self._process = self._find_process()
        if self._process is not None:
            if may_adopt and await self._answers_within(START_TIME):
                log.info("adopted the running containerd, process %d", self._process.pid)
                return
            await self._stop_process()
        await self._start()

    def _find_process(self) -> linux.ProcessHandle | None:
        """The containerd an earlier life of ours left running."""
        try:
            pid = int(self._layout.pid.read_text())
            handle = linux.ProcessHandle(pid)
        except (OSError, ValueError):
            return None
        # The number may belong to somebody else by now; the handle cannot change its meaning.
        if str(self._layout.config) in linux.arguments_of(pid):
            return handle
        handle.close()
        return None

    async def _start(self) -> None:
        pid = self._spawn()
        self._process = linux.ProcessHandle(pid)
        self._layout.pid.write_text(f"{pid}\n")
        if not await self._answers_within(START_TIME):
            raise RuntimeUnavailable(
                f"containerd did not come up; the end of {self._layout.log} says: "
                f"{self._last_log_line()}"
            )

    def _spawn(self) -> int:
        self._rotate_log()
        self._layout.socket.unlink(missing_ok=True)
        command = ["containerd", "--config", str(self._layout.config)]
        if self._options.network_namespace is not None:
            command = ["nsenter", f"--net={self._options.network_namespace}", *command]
        log_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._layout.log), log_flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # A session of its own: a terminal's Ctrl-C is for us, not for it.
            setsid=True,
            setsigmask=(),
        )

    async def _answers_within(self, time: timedelta) -> bool:
        """Whether it is ready for calls before the time is over or the process ends."""
        assert self._process is not None
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(self._process.wait())
            answers = tasks.create_task(self._poll_status(time))
            await asyncio.wait((ended, answers), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            answers.cancel()
        return not answers.cancelled() and answers.result()

    async def _poll_status(self, time: timedelta) -> bool:
        runtime = CriRuntime(self.socket_path, random=self._random)
        try:
            async with asyncio.timeout(time.total_seconds()):
                while True:
                    try:
                        # Unlike the version, answered only when it has read its own state.
                        if (await runtime.status()).runtime_ready:
                            return True
                    except ContainerRuntimeError as error:
                        if error.code == "Unimplemented":
                            # It serves, but not CRI: a plugin failed to load; the log says why.
                            return False
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        finally:
            runtime.close()

    def _rotate_log(self) -> None:
        with suppress(FileNotFoundError):
            if self._layout.log.stat().st_size > LOG_LIMIT_BYTES:
                self._layout.log.replace(self._layout.log.with_suffix(".log.1"))

    def _last_log_line(self) -> str:
        try:
            lines = self._layout.log.read_text(errors="replace").split("\n")
        except OSError:
            return "nothing"
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")

    # --- images -----------------------------------------------------------------------------------

    async def _provide_pause_image(self) -> None:
        if self._options.pause_image:
            return
        runtime = CriRuntime(self.socket_path, random=self._random)
        try:
            if await runtime.image_status(PAUSE_IMAGE_NAME) is None:
                await self.import_images(archive({PAUSE_IMAGE_NAME: pause_image()}))
        except ValueError as error:
            raise ContainerdProblem(str(error)) from error
        finally:
            runtime.close()

    async def import_images(self, content: bytes) -> None:
        """Make the images of an archive (see `ociimage.archive`) known to CRI under their names."""
        with tempfile.NamedTemporaryFile(dir=self._layout.temporary, suffix=".tar") as file:
            file.write(content)
            file.flush()
            await import_archive(Path(file.name), self.socket_path)

    # --- watching and stopping --------------------------------------------------------------------

    async def _run_watch(self) -> None:
        """Start it again whenever it ends."""
        failures = 0
        while True:
            assert self._process is not None
            await self._process.wait()
            log.warning("containerd ended (%s); starting it again", self._last_log_line())
            self._process.close()
            await asyncio.sleep(RESTART.delay(failures, self._random).total_seconds())
            self._restarts += 1
            try:
                await self._start()
                failures = 0
            except (OSError, ContainerRuntimeError) as error:
                log.error("containerd could not be started again: %s", error)
                failures += 1

    async def _stop_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.send(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIME.total_seconds()):
                    await process.wait()
            except TimeoutError:
                process.send(signal.SIGKILL)
                await process.wait()
            self._layout.pid.unlink(missing_ok=True)
        finally:
            process.close()


async def import_archive(path: Path, socket_path: str) -> list[str]:
    """Import an image archive into a containerd; the names it now knows.

    Raises RuntimeUnavailable, or ContainerRuntimeError with the words of ctr.
    """
    runtime = CriRuntime(socket_path, random=Random(0))
    try:
        configuration = await runtime.configuration()
        snapshotter = (configuration.get("containerd") or {}).get("snapshotter") or "overlayfs"
        output = await _run_ctr(
            f"--address={socket_path}",
            "--namespace=k8s.io",
            "images",
            "import",
            f"--snapshotter={snapshotter}",
            str(path),
        )
        names = [found[1] for found in UNPACKED.finditer(output)]
        # CRI hears of new images by an event; whoever starts a pod now must not be earlier.
        async with asyncio.timeout(KNOWN_TIME.total_seconds()):
            for name in names:
                await _until_known(runtime, name)
    except TimeoutError:
        log.warning("imported images are not known to CRI yet: %s", ", ".join(names))
    finally:
        runtime.close()
    return names


async def _until_known(runtime: CriRuntime, name: str) -> None:
    while True:
        if await runtime.image_status(name) is not None:
            return
        await asyncio.sleep(0.01)


async def _run_ctr(*arguments: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ctr",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except FileNotFoundError:
        raise ContainerdProblem("ctr is not installed: apt-get install containerd") from None
    try:
        raw, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    output = raw.decode(errors="replace")
    if process.returncode != 0:
        raise ContainerRuntimeError(f"importing images into containerd failed: {output.strip()}")
    return output
