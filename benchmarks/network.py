"""What the node's network costs: one endpoint change among 10,000 Services, and one DNS query.

Prints JSON. The packet rules are made in a network namespace of the benchmark's own, so it needs
root and nftables; without them only DNS is measured. Run: python benchmarks/network.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path

from pybernetes.aio.clock import SystemClock
from pybernetes.api.types.core_v1 import Namespace, Node, Service, ServicePort, ServiceSpec
from pybernetes.api.types.discovery_v1 import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
)
from pybernetes.api.types.meta_v1 import ObjectMeta
from pybernetes.client.cache import Cache
from pybernetes.client.kind import kind_of
from pybernetes.cluster.isolation import in_namespace
from pybernetes.network.dns import wire
from pybernetes.network.dns.service import ClusterDns, DnsConfig
from pybernetes.network.nfnetlink import Nftables
from pybernetes.network.proxy.proxy import ProxyConfig, service_proxy_over
from pybernetes.network.proxy.ruleset import RulesetConfig

NODE = "node-0"


def made_service(number: int) -> Service:
    address = f"10.96.{number // 250}.{number % 250 + 1}"
    return Service(
        metadata=ObjectMeta(name=f"s{number}", namespace="default", resource_version="1"),
        spec=ServiceSpec(
            type="ClusterIP", cluster_ip=address, cluster_ips=(address,),
            ports=(ServicePort(name="http", port=80, protocol="TCP"),),
        ),
    )  # fmt: skip


def made_slice(number: int, endpoints: int, version: int = 1) -> EndpointSlice:
    first = number * 4
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"s{number}-x",
            namespace="default",
            resource_version=str(version),
            labels={"kubernetes.io/service-name": f"s{number}"},
        ),
        address_type="IPv4",
        ports=(EndpointPort(name="http", port=8080, protocol="TCP"),),
        endpoints=tuple(
            Endpoint(
                addresses=(f"10.{244 + (first + n) // 65536}.{(first + n) // 256 % 256}.{(first + n) % 256}",),
                conditions=EndpointConditions(ready=True),
                node_name=NODE if n == 0 else "node-1",
            )
            for n in range(endpoints)
        ),
    )  # fmt: skip


async def measure_proxy(count: int, changes: int) -> dict[str, float]:
    services, slices = Cache(kind_of(Service)), Cache(kind_of(EndpointSlice))
    nodes = Cache(kind_of(Node))
    services.replace([made_service(n) for n in range(count)])
    slices.replace([made_slice(n, 3) for n in range(count)])
    nodes.replace([])
    config = ProxyConfig(NODE, RulesetConfig("10.96.0.0/16", "10.244.0.0/14"))
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    result: dict[str, float] = {"services": count}
    async with service_proxy_over(services, slices, nodes, config) as proxy:
        result["first_load_ms"] = (time.perf_counter() - started) * 1000
        result["elements"] = proxy.statistics()["elements"]
        kernel = Nftables()
        times: list[float] = []
        cpu = time.process_time()
        for turn, number in enumerate(random.sample(range(count), min(changes, count))):
            wanted = 2 if turn % 2 else 4
            done = proxy.statistics()["transactions"]
            started = time.perf_counter()
            slices.put(made_slice(number, wanted, version=turn + 2))
            # The transaction is in the kernel when it is counted and the loop has come back.
            while proxy.statistics()["transactions"] == done:  # noqa: ASYNC110  # it is measured
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            times.append((time.perf_counter() - started) * 1000)
        result["cpu_ms_per_change"] = (time.process_time() - cpu) * 1000 / changes
        found = kernel.elements("p8s", "endpoints-tcp")
        assert len(found) == len(proxy._wanted.elements["endpoints-tcp"])
        kernel.close()
        result["change_ms_p50"] = statistics.median(times)
        result["change_ms_p99"] = sorted(times)[int(len(times) * 0.99)]
        result["change_ms_max"] = max(times)
    started = time.perf_counter()
    async with service_proxy_over(services, slices, nodes, config):
        result["restart_ms"] = (time.perf_counter() - started) * 1000
    after = resource.getrusage(resource.RUSAGE_SELF)
    result["rss_growth_mb"] = (after.ru_maxrss - before.ru_maxrss) / 1024
    return result


def in_own_namespace(count: int, changes: int) -> dict[str, float] | str:
    if os.geteuid() != 0 or shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None:
        return "skipped: needs root and nftables"
    name = f"bench{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with in_namespace(name):
            return asyncio.run(measure_proxy(count, changes))
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


async def measure_dns(count: int, queries: int) -> dict[str, float]:
    services, slices = Cache(kind_of(Service)), Cache(kind_of(EndpointSlice))
    namespaces = Cache(kind_of(Namespace))
    services.replace([made_service(n) for n in range(count)])
    slices.replace([])
    namespaces.replace([Namespace(metadata=ObjectMeta(name="default"))])
    config = DnsConfig("127.0.0.1", port=0)
    dns = ClusterDns(
        services, slices, namespaces, config, clock=SystemClock(), random=random.Random(1)
    )
    async with dns.serve() as address:
        messages = [
            wire.encode_query(n, wire.encode_name(f"s{n}.default.svc.cluster.local"), wire.A)
            for n in range(count)
        ]
        result: dict[str, float] = {"names": count}
        for name, rounds in (("first", 1), ("repeated", max(1, queries // count))):
            done = threading.Event()
            answered = [0]
            thread = threading.Thread(target=ask, args=(address, messages, rounds, done, answered))
            thread.start()
            loop_cpu = time.thread_time()
            while not done.is_set():  # noqa: ASYNC110  # set by a thread
                await asyncio.sleep(0.02)
            result[f"{name}_us_per_query"] = (time.thread_time() - loop_cpu) * 1e6 / answered[0]
            thread.join()
        return result


def ask(
    address: tuple[str, int], messages: list[bytes], rounds: int, done: threading.Event,
    answered: list[int],
) -> None:  # fmt: skip
    """Ask in bursts, as many as the socket buffers take; count what comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(address)
        one.settimeout(2)
        for _ in range(rounds):
            for start in range(0, len(messages), 64):
                burst = messages[start : start + 64]
                for message in burst:
                    one.send(message)
                for _ in burst:
                    one.recv(4096)
                    answered[0] += 1
    done.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--names", type=int, default=1_000)
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result = {
        "service_proxy": in_own_namespace(options.services, options.changes),
        "dns": asyncio.run(measure_dns(options.names, options.queries)),
    }
    text = json.dumps(result, indent=2, default=str)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
