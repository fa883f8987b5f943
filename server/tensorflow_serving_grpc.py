"""TensorFlow Serving's gRPC services: PredictionService and ModelService. Lane thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rowserve.handlers.http_headers import request_options
from rowserve.handlers.predict_plan import PredictPlan, plan_of
from rowserve.handlers.problem import Problem
from rowserve.handlers.tensorflow_messages import ClassificationResponse, InferenceResult, RegressionResponse
from rowserve.handlers.tensorflow_serving_grpc import PROTOCOL, predict_question, read_predict
from rowserve.handlers.tensorflow_serving_grpc_examples import (
    CLASSIFY,
    REGRESS,
    examples_question,
    join_results,
    read_request,
    read_tasks,
)
from rowserve.handlers.tensorflow_serving_grpc_models import (
    encode_metadata,
    encode_status,
    read_metadata_request,
    read_status_request,
)
from rowserve.handlers.tensorflow_serving_texts import invalid, servable_not_found, status_not_found
from rowserve.server.grpc_service import Asked, Metadata, Method, Service, Several
from rowserve.server.tensorflow_serving_routes import version_state

if TYPE_CHECKING:
    from rowserve.graphs.proto_tables import Message
    from rowserve.handlers.tensorflow_serving_grpc import ModelSpec
    from rowserve.server.models import Models, ServedModel

PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
MOST_PLANS = 256


class TensorFlowServing:
    """Both services, for the models of one server. `room` is the body limit: what a request's claims may grow to.

    The layouts of the last Predicts are kept, by their size: a client's next one mostly has the same.
    """

    def __init__(self, models: Models, room: int) -> None:
        self._models = models
        self._room = room
        self._plans: dict[int, PredictPlan] = {}

    def services(self) -> list[Service]:
        """What the lane serves."""
        prediction: dict[str, Method] = {
            "Predict": self.predict,
            "Classify": partial(self.examples, CLASSIFY, ClassificationResponse),
            "Regress": partial(self.examples, REGRESS, RegressionResponse),
            "MultiInference": self.multi_inference,
            "GetModelMetadata": self.metadata,
        }
        model: dict[str, Method] = {"GetModelStatus": self.status, "HandleReloadConfigRequest": self.reload}
        return [Service(PREDICTION, prediction), Service(MODEL, model)]

    def predict(self, message: bytes, metadata: Metadata) -> Asked:
        """Tensors in, tensors out."""
        options = request_options(metadata, PROTOCOL)
        plan = self._plans.get(len(message))
        if plan is not None and plan.fits(message):
            served = self._find(plan.spec)
            if served.face is plan.face:
                return Asked(served, plan.question(message, options))
        request = read_predict(message)
        served = self._find(request.spec)
        question = predict_question(served.face, request, options, self._room)
        self._keep(plan_of(message, request.spec, served.face, question))
        return Asked(served, question)

    def _keep(self, plan: PredictPlan | None) -> None:
        if plan is None:
            return
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[plan.size] = plan

    def examples(self, method: str, response: type[Message], message: bytes, metadata: Metadata) -> Asked:
        """Examples in, classes or values out."""
        task, examples = read_request(method, message, self._room)
        served = self._find(task.spec)
        options = request_options(metadata, PROTOCOL)
        return Asked(served, examples_question(served.face, task, examples, options, response))

    def multi_inference(self, message: bytes, metadata: Metadata) -> Several:
        """Examples in, classes and values of several signatures out."""
        tasks, examples = read_tasks(message, self._room)
        options = request_options(metadata, PROTOCOL)
        asked = []
        for task in tasks:
            served = self._find(task.spec)
            asked.append(Asked(served, examples_question(served.face, task, examples, options, InferenceResult)))
        return Several(asked, join_results)

    def metadata(self, message: bytes, _: Metadata) -> bytes:
        """The signatures of a model."""
        return encode_metadata(self._find(read_metadata_request(message)).face)

    def status(self, message: bytes, _: Metadata) -> bytes:
        """The states of a model's versions."""
        spec = read_status_request(message)
        version = numbered(spec)
        states = self._models.asked(spec.name, version)
        if not states:
            raise status_not_found(spec.name, version)
        return encode_status(version_state(state) for state in states)

    def reload(self, _message: bytes, _: Metadata) -> bytes:
        """Always refused."""
        raise Problem(501, "this server's models come from its settings and folders, not from its clients")

    def _find(self, spec: ModelSpec) -> ServedModel:
        version = numbered(spec)
        try:
            return self._models.find(spec.name, version)
        except Problem as problem:
            if problem.status != 404:
                raise
            raise servable_not_found(spec.name, version) from None


def numbered(spec: ModelSpec) -> int | None:
    """The version that is asked for. Raises Problem 400 for a label: there are none."""
    if spec.label is not None:
        raise invalid(f"Unrecognized servable version label: {spec.label}")
    return spec.version
