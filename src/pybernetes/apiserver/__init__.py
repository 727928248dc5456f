"""HTTP in, storage out: the Kubernetes API.

`ApiServer` is the whole of it; `hooks` says what can be plugged in, and by what names.
"""

from __future__ import annotations

from pybernetes.api.user import UserInfo
from pybernetes.apiserver.server import ApiServer, Plugins, ServerConfig

__all__ = ["ApiServer", "Plugins", "ServerConfig", "UserInfo"]
