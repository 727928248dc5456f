"""Asks a gRPC server how it feels, by the standard health checking protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

if TYPE_CHECKING:
    from typing import Any

_SERVICE = "grpc.health.v1.Health"


async def check_health(host: str, port: int, service: str) -> str:
    """SERVING, NOT_SERVING, …; or a sentence that begins with "error". Raises OSError."""
    channel = Channel(host, port)
    try:
        stub = HealthStub(channel)
        answer: Any = await stub.Check(HealthCheckRequest(service=service))
    except GRPCError as error:
        if error.status is Status.UNIMPLEMENTED:
            text = f"this server does not implement the grpc health protocol ({_SERVICE})"
            return f"error: {text}: {error.message}"
        return f"error: health rpc failed: {error.message}"
    except (StreamTerminatedError, ProtocolError) as error:
        raise ConnectionError(str(error)) from error
    finally:
        channel.close()
    name: str = HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
