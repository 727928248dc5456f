"""One module per controller; each keeps one promise of the API true.

`CONTROLLERS` is all of them, in the order in which they are started; nothing registers itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pybernetes.client import run_controller
from pybernetes.controllers.bootstraptokens import (
    BootstrapSignerController,
    TokenCleanerController,
)
from pybernetes.controllers.certificates import (
    CertificateApprovalController,
    CertificateCleaningController,
    CertificateSigningController,
)
from pybernetes.controllers.clusterroleaggregation import ClusterRoleAggregationController
from pybernetes.controllers.context import (
    CertificateSigner,
    Controller,
    ControllerContext,
    ControllerOptions,
    SelfRunning,
)
from pybernetes.controllers.cronjob import CronJobController
from pybernetes.controllers.daemonset import DaemonSetController
from pybernetes.controllers.deployment import DeploymentController
from pybernetes.controllers.disruption import DisruptionController, StaleDisruptionController
from pybernetes.controllers.endpoints import EndpointsController
from pybernetes.controllers.endpointslice import EndpointSliceController
from pybernetes.controllers.endpointslicemirroring import EndpointSliceMirroringController
from pybernetes.controllers.garbagecollector import GarbageCollector
from pybernetes.controllers.job import JobController
from pybernetes.controllers.namespace import NamespaceController
from pybernetes.controllers.nodeipam import NodeIpamController
from pybernetes.controllers.nodelifecycle import NodeLifecycleController
from pybernetes.controllers.podgc import PodGarbageCollector
from pybernetes.controllers.replicaset import (
    ReplicaSetController,
    ReplicationControllerController,
)
from pybernetes.controllers.resourcequota import ResourceQuotaController
from pybernetes.controllers.rootca import RootCaController
from pybernetes.controllers.serviceaccount import ServiceAccountController
from pybernetes.controllers.serviceaccounttokens import ServiceAccountTokensController
from pybernetes.controllers.statefulset import StatefulSetController
from pybernetes.controllers.tainteviction import TaintEvictionController
from pybernetes.controllers.ttlafterfinished import TtlAfterFinishedController

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CONTROLLERS",
    "CertificateSigner",
    "Controller",
    "ControllerContext",
    "ControllerOptions",
    "SelfRunning",
    "run_controllers",
]

CONTROLLERS: tuple[Callable[[ControllerContext], Controller | SelfRunning], ...] = (
    ServiceAccountController,
    ServiceAccountTokensController,
    RootCaController,
    NodeIpamController,
    NodeLifecycleController,
    TaintEvictionController,
    EndpointsController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    ReplicaSetController,
    ReplicationControllerController,
    DeploymentController,
    StatefulSetController,
    DaemonSetController,
    JobController,
    CronJobController,
    TtlAfterFinishedController,
    DisruptionController,
    StaleDisruptionController,
    CertificateApprovalController,
    CertificateSigningController,
    CertificateCleaningController,
    BootstrapSignerController,
    TokenCleanerController,
    NamespaceController,
    ResourceQuotaController,
    ClusterRoleAggregationController,
    PodGarbageCollector,
    GarbageCollector,
)


async def run_controllers(
    context: ControllerContext,
    controllers: tuple[Callable[[ControllerContext], Controller | SelfRunning], ...] = CONTROLLERS,
) -> None:
    """Run them all until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for make in controllers:
            controller = make(context)
            tasks.create_task(_run(controller), name=controller.name)


async def _run(controller: Controller | SelfRunning) -> None:
    if isinstance(controller, SelfRunning):
        await controller.run()
    else:
        await run_controller(controller.name, controller.reconcile, controller.sources)
