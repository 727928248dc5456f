"""The plugins, one idea each, and the default profile: which are enabled, in order, with weights.

Names and weights are upstream's. A plugin from elsewhere is found by the entry point group
`pybernetes.scheduler.plugins`: a callable that takes its `args` (a dict) and gives the plugin.
"""

from __future__ import annotations

from pybernetes.scheduler.plugins.default_binder import DefaultBinder
from pybernetes.scheduler.plugins.image_locality import ImageLocality
from pybernetes.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from pybernetes.scheduler.plugins.node_affinity import NodeAffinity
from pybernetes.scheduler.plugins.nodes import NodeName, NodeUnschedulable, TaintToleration
from pybernetes.scheduler.plugins.resources import (
    NodePorts,
    NodeResourcesBalancedAllocation,
    NodeResourcesFit,
)
from pybernetes.scheduler.plugins.scheduling_gates import SchedulingGates
from pybernetes.scheduler.plugins.topology_spread import PodTopologySpread

# In the order in which upstream asks them: the first that refuses names the reason.
FILTERS = (
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    PodTopologySpread,
    InterPodAffinity,
)
SCORES = (
    (TaintToleration, 3),
    (NodeAffinity, 2),
    (NodeResourcesFit, 1),
    (PodTopologySpread, 2),
    (InterPodAffinity, 2),
    (NodeResourcesBalancedAllocation, 1),
    (ImageLocality, 1),
)
PRE_ENQUEUE = (SchedulingGates,)
BIND = (DefaultBinder,)

__all__ = [
    "BIND",
    "FILTERS",
    "PRE_ENQUEUE",
    "SCORES",
    "DefaultBinder",
    "ImageLocality",
    "InterPodAffinity",
    "NodeAffinity",
    "NodeName",
    "NodePorts",
    "NodeResourcesBalancedAllocation",
    "NodeResourcesFit",
    "NodeUnschedulable",
    "PodTopologySpread",
    "SchedulingGates",
    "TaintToleration",
]
