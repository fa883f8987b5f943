from __future__ import annotations

import gc
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from rowserve.graphs.rows import Rows
from rowserve.graphs.run_watch import watched_run
from rowserve.handlers.items import Answer, Options
from rowserve.server import assembly as assembly_module
from rowserve.server import load_watch
from rowserve.server.assembly import Assembly, load_session
from rowserve.server.config import CacheConfig, Config, Limits
from rowserve.server.discovery import discover, find
from rowserve.server.models import ModelState
from rowserve.server.one_core import OneCore
from tests import model_recipes
from tests.doubles import ArithmeticSession
from tests.model_recipes import RECIPES, numbers

WAIT = 120.0  # seconds until a test that hangs is given up


class QueueReactor(Clock):
    """A stepped clock whose callFromThread waits in a queue; `until` makes the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.threadsafe: queue.Queue[Callable[[], None]] = queue.Queue()

    def callFromThread(self, call: Any, *args: Any, **kwargs: Any) -> None:
        self.threadsafe.put(lambda: call(*args, **kwargs))

    def until(self, deferred: Deferred[Any]) -> Any:
        """The deferred's result."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.advance(0)  # a turn ends
            self.threadsafe.get(timeout=WAIT)()
        return results[0]


class House:
    """Assemblies over one cache folder, closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Assembly] = []

    def build(self, **cache: Any) -> tuple[Assembly, QueueReactor]:
        reactor = QueueReactor()
        settings = CacheConfig(**{"folder": str(self.folder / "cache"), "size": "64MiB", **cache})
        assembly = Assembly(reactor, Config(cache=settings))
        self.open.append(assembly)
        return assembly, reactor

    def serve(self, path: Path, *, lazy: bool = False) -> tuple[Assembly, QueueReactor, ModelState]:
        assembly, reactor = self.build()
        return assembly, reactor, reactor.until(assembly.add(find(str(path), None), lazy=lazy))

    def close(self) -> None:
        while self.open:
            self.open.pop().close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.close()


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RECIPES["linear"](tmp_path_factory.mktemp("model") / "linear")


def ask(assembly: Assembly, reactor: QueueReactor, state: ModelState, *numbers: float) -> Answer:
    assert state.model is not None
    signature = state.model.face.signature()
    (spec,) = signature.inputs
    width = (spec.shape or (4,))[0] or 4
    rows = Rows({spec.name: np.repeat(np.array(numbers, np.float32)[:, None], width, axis=1)}, len(numbers))
    answer = assembly.pipeline.answer(state.model, signature, [rows], Options("test"))
    return answer if isinstance(answer, Answer) else reactor.until(answer)


def outcomes(answer: Answer) -> list[str]:
    return [outcome.value for outcome in answer.outcomes]


def test_a_model_is_loaded_on_its_own_thread_and_answers(house, linear):
    assembly, reactor, state = house.serve(linear)
    assert (state.state, state.fault) == ("ready", "")
    assert outcomes(ask(assembly, reactor, state, 1, 2)) == ["computed", "computed"]
    assert outcomes(ask(assembly, reactor, state, 2, 3, 1)) == ["hit", "computed", "hit"]
    told = assembly.metrics.exposition().decode()
    assert 'rowserve_batches_total{model="linear",reason="idle",version="1"} 2.0' in told


def test_pictures_have_the_memory_that_the_settings_give_them(house):
    limits = Limits(decoding="100KiB")
    assembly = Assembly(QueueReactor(), Config(cache=CacheConfig(enabled=False), limits=limits))
    house.open.append(assembly)
    assert assembly.pipeline.decode_memory.take(100 << 10)
    assert not assembly.pipeline.decode_memory.take(1)
    assert b"rowserve_decoding_bytes 102400.0" in assembly.metrics.exposition()


def test_a_card_names_the_signature_of_who_names_none(house, tmp_path):
    RECIPES["no_default"](tmp_path / "m" / "1")
    card = tmp_path / "m" / "rowserve.toml"
    card.write_text('signature = "score"\n')
    _, _, state = house.serve(tmp_path / "m")
    assert state.model is not None
    assert state.model.face.signature().name == "score"
    card.write_text('signature = "scores"\n')
    _, _, state = house.serve(tmp_path / "m")
    assert state.state == "broken"
    assert "signature = 'scores'; there is: embed, score" in state.fault


def test_a_models_batches_count_when_threads_share_a_core(house, linear):
    assembly, reactor, state = house.serve(linear)
    ((work, _),) = assembly.one_core._watched
    assert (work().handovers, work().seconds) == (0, 0)
    ask(assembly, reactor, state, 1)
    assert work().handovers == 1
    assert len(assembly.one_core._threads) == 3  # the reactor's, the model's and the writer's


def test_what_loads_a_model_may_use_all_cores(house, linear, monkeypatch):
    seen = []
    apart, load = OneCore.apart, assembly_module.load_session
    monkeypatch.setattr(OneCore, "apart", lambda self: (seen.append(("apart", threading.get_ident())), apart(self)))
    monkeypatch.setattr(
        assembly_module, "load_session", lambda *given: (seen.append(("load", threading.get_ident())), load(*given))[1]
    )
    house.serve(linear)
    (loader,) = [thread for what, thread in seen if what == "load"]
    assert seen[-2:] == [("apart", loader), ("load", loader)]


def test_after_a_restart_rows_are_hits_and_a_lazy_model_is_not_even_loaded(house, linear):
    assembly, reactor, state = house.serve(linear)
    first = ask(assembly, reactor, state, 1, 2)
    house.close()
    assembly, reactor, state = house.serve(linear, lazy=True)
    again = ask(assembly, reactor, state, 1, 2)
    assert outcomes(again) == ["hit", "hit"]
    assert [bytes(row) for row in again.packed if row] == [bytes(row) for row in first.packed if row]
    assert state.model is not None
    assert not state.model.thread._started
    assert outcomes(ask(assembly, reactor, state, 3)) == ["computed"]


def test_a_copy_under_another_name_shares_rows_and_a_changed_weight_does_not(house, linear, tmp_path, monkeypatch):
    assembly, reactor, state = house.serve(linear)
    ask(assembly, reactor, state, 1)
    copy = shutil.copytree(linear, tmp_path / "copy")
    other = reactor.until(assembly.add(find(str(copy), None)))
    assert outcomes(ask(assembly, reactor, other, 1)) == ["hit"]

    def nearly(*shape: int, seed: int = 7) -> Any:
        weights = numbers(*shape, seed=seed)
        weights.flat[0] += 0.125
        return weights

    monkeypatch.setattr(model_recipes, "numbers", nearly)
    changed = RECIPES["linear"](tmp_path / "changed")
    third = reactor.until(assembly.add(find(str(changed), None)))
    assert outcomes(ask(assembly, reactor, third, 1)) == ["computed"]


def test_one_broken_model_does_not_keep_others_from_serving(house, linear, tmp_path):
    assembly, reactor, good = house.serve(linear)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "saved_model.pb").write_bytes(b"nothing of the kind")
    state = reactor.until(assembly.add(find(str(bad), None)))
    assert state.state == "broken"
    assert str(bad) in state.fault
    assert assembly.models.ready
    assert outcomes(ask(assembly, reactor, good, 1)) == ["computed"]


def test_a_bad_card_breaks_its_model_and_no_other(house, linear, tmp_path):
    copy = shutil.copytree(linear, tmp_path / "models" / "carded" / "1")
    (copy.parent / "rowserve.toml").write_text("[batch]\nmax_row = 3\n")
    shutil.copytree(linear, tmp_path / "models" / "plain" / "1")
    assembly, reactor = house.build()
    states = [reactor.until(assembly.add(source)) for source in discover(tmp_path / "models", {})]
    assert [(state.name, state.state) for state in states] == [("carded", "broken"), ("plain", "ready")]
    assert "max_row" in states[0].fault


def test_a_model_whose_labels_do_not_fit_serves_without_them(house, linear, tmp_path, caplog):
    copy = shutil.copytree(linear, tmp_path / "labelled")
    (copy / "assets.extra").mkdir()
    for names, told in ((b"a\nb\n", "labels.output: 2 labels fit no output"), (b"\xff\nb\nc\n", "not UTF-8")):
        (copy / "assets.extra" / "labels.txt").write_bytes(names)
        caplog.clear()
        _, _, state = house.serve(copy)
        assert state.state == "ready"
        assert state.model.face.labels is None
        (line,) = [r.getMessage() for r in caplog.records if "labels" in r.getMessage()]
        assert told in line
        house.close()
    (copy / "assets.extra" / "labels.txt").write_text("a\nb\nc\n")
    house.close()
    _, _, state = house.serve(copy)
    assert state.model is not None
    assert state.model.face.labels is not None
    assert list(state.model.face.labels.names) == ["a", "b", "c"]


def test_a_signature_that_must_run_alone_is_neither_cached_nor_batched_and_the_log_says_so(house, tmp_path, caplog):
    folder = RECIPES["random_op"](tmp_path / "random")
    assembly, reactor, state = house.serve(folder)
    for _ in range(2):
        assert set(outcomes(ask(assembly, reactor, state, 1))) == {"bypassed"}
    assert "one request at a time, uncached" in caplog.text
    alone = b'rowserve_signature_alone{model="random",signature="serving_default",version="1"} 1.0'
    assert alone in assembly.metrics.exposition()


def test_a_signature_that_changes_with_the_number_of_rows_is_cached_and_batched_and_the_log_says_so(
    house, tmp_path, caplog
):
    assembly, reactor, state = house.serve(RECIPES["counted"](tmp_path / "counted"))
    assert outcomes(ask(assembly, reactor, state, 1)) == ["computed"]
    assert outcomes(ask(assembly, reactor, state, 1, 2, 3)) == ["hit", "computed", "computed"]
    assert (
        'rowserve_batches_total{model="counted",reason="idle",version="1"} 2.0'
        in assembly.metrics.exposition().decode()
    )
    assert "is cached, and runs only in batches of 16, filled up" in caplog.text
    assert b"rowserve_signature_alone{" not in assembly.metrics.exposition()


def test_a_signature_that_does_leaves_the_keys_of_the_others_as_they_are(house, tmp_path):
    _, _, state = house.serve(RECIPES["counted_beside_linear"](tmp_path / "both"))

    def execution(signature: str) -> dict[str, bytes]:
        fields = state.model.served(state.model.face.signature(signature)).generation({}).fields
        return {field.name: field.content for field in fields if field.label == "execution"}

    assert execution("serving_default") == {"engine": b"tensorflow", "precision": b"as saved"}
    assert execution("counted") == {**execution("serving_default"), "rows at once": b"as 16"}


def test_without_a_cache_all_is_computed(house, linear):
    assembly, reactor = house.build(enabled=False)
    state = reactor.until(assembly.add(find(str(linear), None)))
    for _ in range(2):
        assert outcomes(ask(assembly, reactor, state, 1)) == ["computed"]


def test_a_session_call_that_does_not_come_back_is_told(house, linear, monkeypatch):
    assembly, _, state = house.serve(linear)
    assert assembly.health() == ""
    monkeypatch.setattr(state.model.thread, "busy_seconds", lambda: 61.0)
    assert "has not come back" in assembly.health()


def test_what_loading_leaves_behind_is_passed_over_by_garbage_collections(house, linear):
    gc.unfreeze()
    house.serve(linear)
    assert gc.get_freeze_count() > 50_000


def test_a_server_that_starts_again_tests_nothing_again(house, linear, monkeypatch):
    house.serve(linear)
    house.close()
    known: list[Any] = []

    def watched(source, settings, about):
        known.append(about)
        return load_session(source, settings, about)

    monkeypatch.setattr("rowserve.server.assembly.load_session", watched)
    _, _, state = house.serve(linear)
    assert state.model is not None
    assert known == [state.model.description]


def test_a_remembered_description_that_cannot_be_read_is_made_anew(house, linear, monkeypatch):
    house.serve(linear)
    house.close()
    monkeypatch.setattr("rowserve.server.assembly.RowCache.recall", lambda *_: b"{}")
    _, _, state = house.serve(linear, lazy=True)
    assert state.state == "ready"


def test_rows_of_two_engines_never_meet(house, linear, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    models = tmp_path / "models"
    for name, card in (("one", ""), ("other", 'engine = "openvino"')):
        shutil.copytree(linear, models / name / "1")
        (models / name / "rowserve.toml").write_text(card)
    for name in ("one", "other"):
        assembly, reactor, state = house.serve(models / name)
        assert (state.state, state.fault) == ("ready", "")
        assert state.model is not None
        assert state.model.face.engine == {"one": "tensorflow", "other": "openvino"}[name]
        assert outcomes(ask(assembly, reactor, state, 1)) == ["computed"]
        assert outcomes(ask(assembly, reactor, state, 1)) == ["hit"]
        house.close()


def test_a_model_that_does_not_end_its_loading_is_broken_and_stays_so(house, tmp_path, monkeypatch):
    end, sessions = threading.Event(), []

    def hang(source: Any, settings: Any, known: Any) -> Any:
        if source.name == "hung":
            assert end.wait(WAIT)
        sessions.append(ArithmeticSession())
        return sessions[-1]

    monkeypatch.setattr(assembly_module, "load_session", hang)
    for name in ("hung", "good"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "saved_model.pb").write_bytes(name.encode())
    assembly, reactor = house.build()
    hung, good = (assembly.add(find(str(tmp_path / name), None)) for name in ("hung", "good"))
    assert reactor.until(good).state == "ready"
    assert not assembly.models.ready
    reactor.advance(599)
    assert not hung.called
    reactor.advance(2)
    (state,) = (state for state in assembly.models.states() if state.name == "hung")
    assert hung.called
    assert (state.state, state.fault) == ("broken", "it did not load within limits.load (10m)")
    assert assembly.models.ready
    end.set()
    reactor.threadsafe.get(timeout=WAIT)()
    assert (state.state, state.model) == ("broken", None)
    house.close()
    assert [session.closed for session in sessions] == [True, True]


def test_a_run_that_does_not_come_back_ends_the_loading_before_its_own_limit(house, tmp_path, monkeypatch):
    end, begun = threading.Event(), threading.Event()

    def hang(source: Any, settings: Any, known: Any) -> Any:
        with watched_run():
            pass
        with watched_run():
            begun.set()
            assert end.wait(WAIT)
        return ArithmeticSession()

    monkeypatch.setattr(assembly_module, "load_session", hang)
    (tmp_path / "hung" / "1").mkdir(parents=True)
    (tmp_path / "hung" / "1" / "saved_model.pb").write_bytes(b"")
    assembly, reactor = house.build()
    hung = assembly.add(find(str(tmp_path / "hung"), None))
    assert begun.wait(WAIT)
    reactor.advance(1)
    assert not hung.called
    monkeypatch.setattr(load_watch, "STUCK_SECONDS", 0.0)
    reactor.advance(1)
    (state,) = assembly.models.states()
    assert hung.called
    assert (state.state, state.fault) == ("broken", "a run of made-up rows did not come back within 0 s")
    end.set()
    reactor.threadsafe.get(timeout=WAIT)()
    assert state.model is None


def test_a_thread_that_hangs_does_not_hold_up_the_end(house, monkeypatch):
    assembly, _ = house.build()
    end, begun = threading.Event(), threading.Event()
    assembly.start_thread(lambda: (begun.set(), end.wait(WAIT))[0])
    assert begun.wait(WAIT)
    assembly.close(0.1)  # returns
    house.open.clear()
    assert not end.is_set()
    end.set()
