"""`p8s server`: everything of a cluster that runs in one process, from its start to its signal.

Order of the start, each step undone in reverse: certificates, store, control plane, HTTPS, node.
Nothing here decides anything about Kubernetes; it brings the parts and the machine together.

A signal (SIGTERM, SIGINT) ends the process cleanly: streams are closed, the store is flushed.
Containers are left running: the next start adopts them. `p8s down` is what removes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from pybernetes.aio.clock import SystemClock
from pybernetes.cluster import kubeconfigs, pki
from pybernetes.cluster.access import AccessOptions
from pybernetes.cluster.addons import Addons, ensure_addons
from pybernetes.cluster.config import LONELY_ADDRESS, ConfigError, local_address
from pybernetes.cluster.controlplane import ControlPlaneOptions, control_plane
from pybernetes.cluster.process import hold_pid_file
from pybernetes.cluster.serving import serving_context
from pybernetes.cluster.signing import CaSigner
from pybernetes.controllers import ControllerOptions
from pybernetes.kubelet.runtime.interface import ContainerRuntimeError
from pybernetes.network.program import NetworkError
from pybernetes.storage import SqliteStore, StoreError
from pybernetes.wire.server import serve

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pybernetes.cluster.config import ClusterConfig
    from pybernetes.cluster.controlplane import ControlPlane
    from pybernetes.cluster.progress import Progress

log = logging.getLogger(__name__)

# Collections of the youngest objects are rare once the caches are warm; what lives at the end of
# the start lives for ever and is taken out of the collector's sight.
GC_THRESHOLDS = (50_000, 20, 50)


def serve_until_signalled(config: ClusterConfig, progress: Progress) -> int:
    """Run the server of a data directory in the foreground; the exit code."""
    set_up_logging(config.log_level)
    raise_file_limit()
    with hold_pid_file(config.pid_file):
        try:
            run_until_signalled(run_server(config, progress))
        except Exception as error:
            report_failure(error)
            return 1
        finally:
            progress.close()
    return 0


async def run_server(config: ClusterConfig, progress: Progress) -> None:
    """Start everything, say that it is ready, and run until cancelled."""
    async with AsyncExitStack() as stack:
        plane = await start_control_plane(config, progress, stack)
        if config.simulated_nodes is not None:
            from pybernetes.cluster.simulation import simulated_nodes

            with progress.step("simulated nodes"):
                await stack.enter_async_context(
                    simulated_nodes(
                        plane,
                        config.simulated_nodes,
                        pod_network=config.pod_network,
                        cluster_domain=config.cluster_domain,
                        dns_address=str(config.dns_address),
                    )
                )
        elif config.has("agent"):
            from pybernetes.cluster.node import local_node
            from pybernetes.cluster.nodesettings import local_settings

            settings = local_settings(config, advertised(config))
            await stack.enter_async_context(local_node(plane, config, settings, progress))
        freeze_what_is_there()
        log.info("ready")
        progress.ready()
        await asyncio.get_running_loop().create_future()


async def start_control_plane(
    config: ClusterConfig, progress: Progress, stack: AsyncExitStack
) -> ControlPlane:
    """Certificates, store, control plane and its HTTPS server; undone by the stack."""
    clock = SystemClock()
    random = Random(SystemRandom().getrandbits(64))
    address = advertised(config)
    keys = pki.Pki(config.pki_directory)
    with progress.step("certificates"):
        names = server_names(config, address)
        pki.ensure_control_plane(keys, server_names=names, now=datetime.now(UTC))
    with progress.step("store"):
        store = await stack.enter_async_context(
            await SqliteStore.open(config.store_file, clock=clock)
        )
    options = ControlPlaneOptions(
        controllers=config.has("controllers"),
        scheduler=config.has("scheduler"),
        controller_options=ControllerOptions(
            pod_network=config.pod_network,
            root_ca=keys.ca.certificate.read_text(),
            signer=CaSigner(keys, clock),
        ),
        access=AccessOptions(
            pki=keys,
            service_network=config.service_network,
            advertise_address=address,
            port=config.port,
            cluster_domain=config.cluster_domain,
        ),
    )
    plane = await stack.enter_async_context(
        control_plane(store, clock=clock, random=random, options=options, progress=progress)
    )
    with progress.step(f"HTTPS on port {config.port}"):
        try:
            await stack.enter_async_context(
                serve(
                    plane.server.handle,
                    host=config.bind_address,
                    port=config.port,
                    tls=serving_context(keys.apiserver, keys.ca.certificate),
                )
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {config.bind_address}:{config.port}: {error.strerror};"
                " stop the program that does, or choose another --port"
            ) from error
    # Loopback is right for whoever reads the file here, and never leaves the machine.
    host = "127.0.0.1" if config.bind_address == "0.0.0.0" else config.bind_address
    if config.isolated_nodes:
        host = address
    kubeconfigs.write_admin(config.kubeconfig, keys, f"https://{host}:{config.port}")
    addons = Addons(config, f"https://{address}:{config.port}", keys.ca.certificate.read_bytes())
    await ensure_addons(plane.admin, addons)
    return plane


def advertised(config: ClusterConfig) -> str:
    """The address at which nodes and pods reach the API server.

    Loopback will not do: every pod has one of its own. A machine without any network gets an
    address of the range for tests (RFC 2544), on its own loopback interface.
    """
    if config.advertise_address:
        return config.advertise_address
    if config.bind_address not in ("0.0.0.0", "127.0.0.1"):
        return config.bind_address
    return local_address() or LONELY_ADDRESS


def server_names(config: ClusterConfig, address: str) -> list[str]:
    """Every name and address by which somebody may call the API server."""
    domain = config.cluster_domain
    return [
        "localhost",
        "127.0.0.1",
        address,
        config.node,
        str(config.kubernetes_address),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
    ]


def set_up_logging(level: str) -> None:
    """One line an event: moment, level, part, words."""
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
    )


def raise_file_limit() -> None:
    """Every watch and every container costs descriptors; the usual 1024 are soon gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 1_048_576) if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_until_signalled(main: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT, which end it cleanly, also in the middle of its start."""

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def stop() -> None:
            # Once: a second signal must not cut the clean-up short.
            for number in signals:
                loop.remove_signal_handler(number)
            log.info("stopping")
            task.cancel()

        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, stop)
        await main

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run())


def freeze_what_is_there() -> None:
    """What was made by the end of the start stays: no collection has to look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def report_failure(error: Exception) -> None:
    """Known ways to fail say all in their sentence; for the others the trace is needed."""
    cause = innermost(error)
    known = isinstance(
        cause, (OSError, StoreError, ConfigError, NetworkError, ContainerRuntimeError)
    )
    log.critical("%s", cause, exc_info=None if known else error)


def innermost(error: BaseException) -> BaseException:
    """The first error inside a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
