"""Removes everything our containerd ever made on this machine.

First politely, through the runtime, so that CNI plugins get to release addresses and rules; then
whatever is left by force: processes of shims that name our socket, mounts below our directory,
files, cgroups. Each step looks at what is there and may be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime import linux
from pybernetes.kubelet.runtime.containerd import Containerd
from pybernetes.kubelet.runtime.containerd_config import Layout
from pybernetes.kubelet.runtime.cri import CriRuntime
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from pybernetes.kubelet.runtime.containerd import ContainerdOptions

log = logging.getLogger(__name__)

SHIM = "containerd-shim-runc-v2"
# Places that containerd and libcni use whatever their configuration says.
SHIM_SOCKETS = Path("/run/containerd/s")
CNI_NOTES = Path("/var/lib/cni/results")
# Sandboxes removed at the same time.
PARALLEL = 8
POLITE_TIME = timedelta(minutes=2)


async def remove_all_traces(
    options: ContainerdOptions,
    *,
    random: Random,
    cgroup_parents: Sequence[str] = (),
    keep_images: bool = False,
) -> None:
    """Containers, processes, mounts, files; and the cgroups below `cgroup_parents`.

    `cgroup_parents` are paths from the root of the cgroup hierarchies ("kubepods"). Containerd is
    started once more if it does not run and sandboxes are left. The directory is gone afterwards,
    but for the images if they are to be kept: what was loaded by hand nobody could pull again.
    """
    layout = Layout(options.directory)
    # Noted first: a containerd that lost its memory removes these directories when it starts.
    sandboxes = [path.name for path in layout.root.glob("io.containerd.grpc.v1.cri/sandboxes/*")]
    if sandboxes:
        await _remove_politely(options, random)
    # One that an agent left behind which was killed in the middle of its start.
    for left in containerds_of(layout):
        await _kill_tree(left)
    for shim in shims_of(layout):
        await _kill_tree(shim)
    linux.unmount_below(layout.directory)
    _remove_shim_sockets(layout)
    _remove_network_notes(sandboxes)
    _remove_files(layout, keep_images=keep_images)
    for parent in cgroup_parents:
        await _remove_cgroup(parent)


def _remove_files(layout: Layout, *, keep_images: bool) -> None:
    kept = {layout.root} if keep_images else set()

    def doomed() -> list[Path]:
        if not layout.directory.exists():
            return []
        if not kept:
            return [layout.directory]
        return [path for path in layout.directory.iterdir() if path not in kept]

    for path in doomed():
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    if left := doomed():
        # Something was still being written, or a mount had hidden more mounts.
        linux.unmount_below(layout.directory)
        for path in left:
            shutil.rmtree(path)


async def _remove_politely(options: ContainerdOptions, random: Random) -> None:
    try:
        async with (
            asyncio.timeout(POLITE_TIME.total_seconds()),
            Containerd(options, random=random) as containerd,
        ):
            runtime = CriRuntime(containerd.socket_path, random=random)
            try:
                await remove_all_sandboxes(runtime)
            finally:
                runtime.close()
    except (ContainerRuntimeError, TimeoutError) as error:
        log.warning("containers are removed by force: %s", error)


async def remove_all_sandboxes(runtime: CriRuntime) -> None:
    """Stop and remove every sandbox with its containers."""
    limit = asyncio.Semaphore(PARALLEL)

    async def remove(sandbox_id: str) -> None:
        async with limit:
            try:
                await runtime.remove_sandbox(sandbox_id)
            except ContainerRuntimeError as error:
                log.warning("sandbox %s is removed by force: %s", sandbox_id, error)

    async with asyncio.TaskGroup() as tasks:
        for sandbox in await runtime.list_sandboxes():
            tasks.create_task(remove(sandbox.id), name=f"remove {sandbox.id}")


def containerds_of(layout: Layout) -> list[int]:
    """Processes that run with our configuration file."""
    return [
        pid
        for pid, arguments in linux.processes()
        if arguments and Path(arguments[0]).name == "containerd" and str(layout.config) in arguments
    ]


def shims_of(layout: Layout) -> list[int]:
    """Processes of shims that were started by our containerd."""
    return [
        pid
        for pid, arguments in linux.processes()
        if arguments and Path(arguments[0]).name == SHIM and str(layout.socket) in arguments
    ]


async def _kill_tree(pid: int) -> None:
    # The containers first: a shim that ends before them hands them to process 1.
    for process in [*linux.descendants(pid), pid]:
        try:
            handle = linux.ProcessHandle(process)
        except ProcessLookupError:
            continue
        try:
            handle.send(signal.SIGKILL)
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await handle.wait()
        finally:
            handle.close()


def _remove_shim_sockets(layout: Layout) -> None:
    # Each shim notes the address of its socket.
    for note in layout.state.glob("io.containerd.runtime.v2.task/*/*/address"):
        with suppress(OSError):
            address = note.read_text().strip().removeprefix("unix://")
            if address.startswith("/"):
                Path(address).unlink()


def _remove_network_notes(sandboxes: Sequence[str]) -> None:
    # libcni's cache of what plugins answered. Asked to release a network it removes the note; what
    # is here still belongs to sandboxes that could not be released politely.
    for sandbox_id in sandboxes:
        for note in CNI_NOTES.glob(f"*-{sandbox_id}-*"):
            note.unlink(missing_ok=True)
    for directory in (CNI_NOTES, CNI_NOTES.parent, SHIM_SOCKETS, SHIM_SOCKETS.parent):
        # Common to all on this machine: gone only if nobody has anything there.
        with suppress(OSError):
            directory.rmdir()


async def _remove_cgroup(parent: str) -> None:
    for root in linux.cgroup_roots():
        top = root / parent.strip("/")
        if top == root or not top.is_dir():
            continue
        # Innermost first; a cgroup can be removed once its processes are gone.
        for directory in [*sorted(top.rglob("*/"), key=lambda p: -len(p.parts)), top]:
            for attempt in range(20):
                try:
                    directory.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    if attempt == 19:
                        log.warning("cgroup %s is still in use", directory)
                    await asyncio.sleep(0.05)
