from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import pytest

from rowserve.graphs import engine
from rowserve.graphs.engine import graph_error, session_config, tensorflow, without_banners
from rowserve.graphs.errors import GraphFailed, RowBroken
from rowserve.graphs.load_settings import LoadSettings


@pytest.mark.slow
def test_loading_and_running_a_model_writes_nothing_to_stderr(model):
    code = (
        "import sys, pathlib, numpy as np\n"
        "from rowserve.graphs.loading import load, LoadSettings\n"
        "from rowserve.graphs.rows import Rows\n"
        "for folder in sys.argv[1:]:\n"
        "    session = load(pathlib.Path(folder), LoadSettings())\n"
        "    spec = session.description.signatures['serving_default'].inputs[0]\n"
        "    session.run('serving_default', Rows({spec.name: np.zeros((1, *spec.shape), spec.numpy_dtype)}, 1))\n"
        "    session.close()\n"
        "print('done')\n"
    )
    folders = [str(model(name)) for name in ("linear", "only_v1", "only_v2", "embedding", "counter")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_only_banners_are_held_back(capfd: pytest.CaptureFixture):
    with without_banners():
        os.write(2, b"said by somebody else\n")
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n")
        os.write(2, b"I0000 00:00:1.2 3 port.cc:153] oneDNN custom operations are on.\n")
    with pytest.raises(ZeroDivisionError), without_banners():
        os.write(2, b"said before it failed\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "said by somebody else\nsaid before it failed\n"


def test_errors_are_told_apart_by_whose_fault_they_are():
    errors = tensorflow().errors
    for kind in (errors.InvalidArgumentError, errors.OutOfRangeError, errors.UnimplementedError, errors.DataLossError):
        assert type(graph_error(kind(None, None, "no good"))) is RowBroken
    for kind in (
        errors.ResourceExhaustedError,
        errors.InternalError,
        errors.FailedPreconditionError,
        errors.AbortedError,
    ):
        assert type(graph_error(kind(None, None, "no good"))) is GraphFailed
    assert type(graph_error(MemoryError())) is GraphFailed
    assert "MemoryError" in str(graph_error(MemoryError()))
    own = RowBroken("mine")
    assert graph_error(own) is own


def test_threads_are_as_set_and_all_cores_unless_told(monkeypatch: pytest.MonkeyPatch):
    assert session_config(LoadSettings(intra_op_threads=3, inter_op_threads=2)).intra_op_parallelism_threads == 3
    assert session_config(LoadSettings(intra_op_threads=3, inter_op_threads=2)).inter_op_parallelism_threads == 2
    monkeypatch.setattr("rowserve.graphs.load_settings.schedulable_cores", lambda: 7)
    assert session_config(LoadSettings()).intra_op_parallelism_threads == 7


def test_importing_tensorflow_leaves_the_process_s_warnings_alone():
    before = list(warnings.filters)
    tensorflow()
    assert warnings.filters == before


def test_only_one_thread_at_a_time_imports_and_holds_back_stderr(monkeypatch):
    inside: list[int] = []
    overlaps: list[int] = []
    first, go_on = threading.Event(), threading.Event()

    def importing() -> None:
        overlaps.append(len(inside))
        inside.append(1)
        first.set()
        go_on.wait(60)
        inside.pop()

    monkeypatch.setattr(engine, "_tensorflow", importing)
    threads = [threading.Thread(target=engine.tensorflow, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert first.wait(60)
    assert engine.IMPORTING.locked()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert overlaps == [0, 0, 0]
