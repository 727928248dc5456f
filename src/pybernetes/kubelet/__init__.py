"""The node agent: runs the pods that are bound to its node. See docs/kubelet.md."""

from pybernetes.kubelet.config import KubeletConfig
from pybernetes.kubelet.kubelet import Kubelet

__all__ = ["Kubelet", "KubeletConfig"]
