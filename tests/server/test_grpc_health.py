from __future__ import annotations

from typing import Any

import pytest

from rowserve.graphs.proto_tables import message_classes
from rowserve.handlers.problem import Problem
from rowserve.server.grpc_health import HEALTH, NAME, Health, HealthCheckResponse
from rowserve.server.models import Models

HealthCheckRequest = message_classes(HEALTH)["grpc.health.v1.HealthCheckRequest"]
SERVING, NOT_SERVING = 1, 2


def check(models: Models, name: str) -> int:
    health = Health(models, ["a.Service"])
    found: int = HealthCheckResponse.FromString(
        health.check(HealthCheckRequest(service=name).SerializeToString(), {})
    ).status
    return found


def ready(models: Models, name: str, version: int = 1) -> None:
    state: Any = models.expect(name, version)
    state.state, state.model = "ready", object()


@pytest.mark.parametrize("name", ["", "a.Service", NAME])
def test_the_server_and_its_services_serve_once_every_model_has_loaded(name: str) -> None:
    models = Models()
    assert check(models, name) == NOT_SERVING
    ready(models, "m")
    assert check(models, name) == SERVING
    loading = models.expect("n", 1)
    assert check(models, name) == NOT_SERVING
    loading.state = "broken"
    assert check(models, name) == SERVING


def test_a_model_serves_when_a_version_of_it_is_ready() -> None:
    models = Models()
    ready(models, "m")
    models.expect("m", 2)
    models.expect("n", 1)
    assert check(models, "m") == SERVING
    assert check(models, "n") == NOT_SERVING


def test_what_is_unknown_or_not_served_is_said_so() -> None:
    with pytest.raises(Problem, match="no service and no model 'x'") as caught:
        check(Models(), "x")
    assert caught.value.status == 404
    with pytest.raises(Problem) as caught:
        Health(Models(), []).check(b"\x0a\x05a", {})
    assert caught.value.status == 400
    with pytest.raises(Problem) as caught:
        Health(Models(), []).watch(b"", {})
    assert caught.value.status == 501


def test_its_messages_are_those_of_grpc() -> None:
    theirs = pytest.importorskip("grpc_health.v1.health_pb2", reason="grpcio-health-checking is not installed")
    for name, message in message_classes(HEALTH).items():
        real = getattr(theirs, name.rpartition(".")[2])
        for field in message.DESCRIPTOR.fields:  # type: ignore[attr-defined]
            other = real.DESCRIPTOR.fields_by_name[field.name]
            assert (field.number, field.type) == (other.number, other.type)
    told = HealthCheckResponse(status="NOT_SERVING").SerializeToString()
    assert theirs.HealthCheckResponse.FromString(told).status == NOT_SERVING

