"""`serve` without file descriptors: one line in the log, probes answered, and all well again afterwards."""

from __future__ import annotations

import resource
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

from tests.tools.processes import SERVING, arithmetic_model, started


def test_out_of_descriptors_probes_are_answered_and_one_line_says_so(tmp_path: Path) -> None:
    model = arithmetic_model(tmp_path / "m")
    arguments = ("serve", "--listen", "127.0.0.1:0", "--model", f"m={model}", "--no-cache")
    with started(*arguments, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := SERVING.search(line.decode())))
        host, port = url.removeprefix("http://").split(":")
        files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files + 8, files + 200))
        clients = [socket.create_connection((host, int(port)), timeout=60) for _ in range(60)]
        for path in ("livez", "readyz", "metrics"):
            text = urlopen(f"{url}/{path}", timeout=60).read()
        assert b"rowserve_out_of_descriptors_total 1.0" in text
        for client in clients:
            client.close()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files + 200, files + 200))
        for _ in range(50_000):
            with closing(socket.create_connection((host, int(port)), timeout=60)) as client:
                client.sendall(b"GET /v1/models/m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if client.recv(100).startswith(b"HTTP/1.1 200"):
                    break
        else:
            raise AssertionError("it does not serve again")
        process.terminate()
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert rest.count(b"file descriptor") == 1, rest
        assert b"Traceback" not in rest, rest
