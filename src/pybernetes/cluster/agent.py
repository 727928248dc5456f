"""`p8s agent`: a node in a process of its own, over HTTPS; it may be on another machine."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from random import Random, SystemRandom
from typing import TYPE_CHECKING

from pybernetes.aio.clock import SystemClock
from pybernetes.client import Caches, EventWriter
from pybernetes.client.kubeconfig import KubeconfigError, client_from, load_kubeconfig
from pybernetes.cluster.config import ConfigError
from pybernetes.cluster.node import Connection, node_agent
from pybernetes.cluster.process import hold_pid_file
from pybernetes.cluster.server import (
    freeze_what_is_there,
    raise_file_limit,
    report_failure,
    run_until_signalled,
)

if TYPE_CHECKING:
    from pybernetes.cluster.nodesettings import NodeSettings
    from pybernetes.cluster.progress import Progress

log = logging.getLogger(__name__)


def serve_until_signalled(settings: NodeSettings, progress: Progress) -> int:
    """Run the node of a data directory in the foreground; the exit code."""
    raise_file_limit()
    with hold_pid_file(settings.pid_file):
        try:
            run_until_signalled(run_agent(settings, progress))
        except Exception as error:
            report_failure(error)
            return 1
        finally:
            progress.close()
    return 0


async def run_agent(settings: NodeSettings, progress: Progress) -> None:
    """Start the node, say that it is ready, and run until cancelled."""
    clock = SystemClock()
    random = Random(SystemRandom().getrandbits(64))
    try:
        client = client_from(load_kubeconfig([settings.kubeconfig]), user_agent="p8s-agent")
    except KubeconfigError as error:
        raise ConfigError(f"{settings.kubeconfig}: {error}") from error
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        caches = Caches(client, random=random)
        events = EventWriter(client, clock=clock, random=random)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for name, running in (("caches", caches.run()), ("events", events.run())):
            task = tasks.create_task(running, name=name)
            stack.callback(task.cancel)
        connection = Connection(
            client=client,
            caches=caches,
            recorder=events.recorder("kubelet", host=settings.name),
            clock=clock,
            random=random,
        )
        await stack.enter_async_context(
            node_agent(connection, settings, settings.pair, settings.client_ca, progress)
        )
        freeze_what_is_there()
        log.info("ready")
        progress.ready()
        await asyncio.get_running_loop().create_future()
