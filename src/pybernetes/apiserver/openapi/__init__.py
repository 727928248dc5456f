"""OpenAPI: what the server says of the shape of its objects and of its paths.

`OpenApi` answers `/openapi/v2` and `/openapi/v3`. kubectl asks there whether the server checks
fields itself, how lists are merged, and what to say in `kubectl explain`. Everything is made
when somebody asks, from the schema model and from what is served; nothing here is imported or
built by a start. See docs/apiserver.md.
"""

from pybernetes.apiserver.openapi.routes import OpenApi

__all__ = ["OpenApi"]
