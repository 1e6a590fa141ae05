#!/usr/bin/env python3
"""Run a command beside a real S3 server, and leave nothing behind.

    python3 tests/servers.py -- cargo nextest run --workspace

SeaweedFS from .venv (`make tools`) runs on free loopback ports, with credentials made up for this
run and data in a temporary directory. The command finds it through its environment:

    WALRUST_TEST_S3_ENDPOINT, WALRUST_TEST_S3_ACCESS_KEY, WALRUST_TEST_S3_SECRET_KEY
    WALRUST_TEST_LITESTREAM     absolute path of the Litestream binary

AWS_* variables are hidden from it, so that no test can reach an account of the person who runs it,
and .venv/bin comes first in its PATH. When the command ends, or on SIGINT, SIGTERM or SIGHUP, the
server and every process that the command left are ended and the directory is removed. The exit
code is the command's (128 + N if signal N ended it), or 1 if the server did not start.
"""

import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(__file__).resolve().parent.parent / ".venv" / "bin"
START_SECONDS = 60
STOP_SECONDS = 10
STARTS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None)


class Stopped(Exception):
    """A signal asks this program to stop."""


def on_signal(number, _frame):
    for each in SIGNALS:  # what is being torn down must not be torn down twice
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def free_ports():
    """Two free ports for each service; all are held at once, so that they differ."""
    services = ("master", "volume", "filer", "s3")
    names = [service + kind for service in services for kind in (".port", ".port.grpc")]
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: holder.getsockname()[1] for name, holder in zip(names, holders)}


def start_weed(folder, ports, access_key, secret_key):
    """Starts SeaweedFS, on loopback only and reporting to nobody, and does not wait for it."""
    (folder / "data").mkdir(parents=True)
    identity = {"name": "walrust", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                "credentials": [{"accessKey": access_key, "secretKey": secret_key}]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = {
        **ports,
        "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "dir": folder / "data",
        # The only master need not wait for votes.
        "master.peers": "none", "master.telemetry": "false",
        # Every bucket gets volumes of its own; they take no space before they are written.
        "master.volumeSizeLimitMB": 64, "volume.max": 10000, "volume.minFreeSpace": "64MiB",
        "filer.localSocket": folder / "filer.sock", "s3.localSocket": folder / "s3.sock",
        # As on AWS, a missing bucket is an error.
        "s3": "true", "s3.config": folder / "s3.json", "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0, "s3.port.lance": 0,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    # HOME and the working folder are searched for configuration, and variables override it.
    environment = {"HOME": folder, "TMPDIR": folder, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            [BIN / "weed", "-logtostderr=true", "server", *arguments], cwd=folder,
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            # Ctrl-C must not end the server under tests that still clean up, but if this program
            # is killed the server must not survive it.
            start_new_session=True,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


def answer(port, path):
    """The body of a GET; empty while the server does not answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as server:
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.request("GET", path)
            return server.getresponse().read()
    return b""


def wait_until_ready(weed, ports):
    """True when the server takes data, False when it ended or the deadline passed."""
    deadline = time.monotonic() + START_SECONDS
    while weed.poll() is None and time.monotonic() < deadline:
        # S3 answers before the master knows a place for data, and would refuse a PUT.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            topology = json.loads(answer(ports["master.port"], "/dir/status"))["Topology"]
            if topology["Free"] > 0 and answer(ports["s3.port"], "/"):
                return True
        time.sleep(0.05)
    return False


def end_weed(weed, ports):
    """Ends the server at once: its data is thrown away, and a polite end takes it 10 seconds."""
    weed.kill()
    weed.wait()
    # These sockets have a fixed place that no option moves.
    for name, port in ports.items():
        service, _, kind = name.partition(".port.")
        if kind:
            pathlib.Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)


def end_orphans():
    """Kills what the command left running: as subreaper this program has inherited it."""
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := children.read_text().split()):
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run(command, environment):
    """Runs the command to its end, or to ours."""
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        code = child.wait()
        return code if code >= 0 else 128 - code
    except Stopped as stopped:
        # A terminal sends SIGINT to the command too, and two signals would make nextest impatient.
        if stopped.args[0] != signal.SIGINT:
            child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        raise


def run_beside_weed(command, folder):
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    for attempt in range(STARTS):
        place, ports = folder / str(attempt), free_ports()
        weed = start_weed(place, ports, access_key, secret_key)
        try:
            if wait_until_ready(weed, ports):
                shown = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
                return run(command, {
                    **shown,
                    "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                    "WALRUST_TEST_S3_ENDPOINT": f"http://127.0.0.1:{ports['s3.port']}",
                    "WALRUST_TEST_S3_ACCESS_KEY": access_key,
                    "WALRUST_TEST_S3_SECRET_KEY": secret_key,
                    "WALRUST_TEST_LITESTREAM": str(BIN / "litestream"),
                })
            # It ends at once if another process has taken one of the ports: worth another try.
            if weed.poll() is None:
                break
        finally:
            end_weed(weed, ports)
    log = (place / "log").read_text(errors="replace").splitlines()
    print("the S3 server did not start:", *log[-40:], sep="\n", file=sys.stderr)
    return 1


def main():
    if sys.argv[1:2] != ["--"] or len(sys.argv) < 3:
        sys.exit(__doc__)
    missing = [name for name in ("weed", "litestream") if not (BIN / name).is_file()]
    if missing:
        sys.exit(f"{BIN} has no {' and no '.join(missing)}: run `make tools`")
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="walrust-servers-") as folder:
        try:
            for each in SIGNALS:
                signal.signal(each, on_signal)
            code = run_beside_weed(sys.argv[2:], pathlib.Path(folder))
        except Stopped as stopped:
            code = 128 + stopped.args[0]
        finally:
            end_orphans()
    sys.exit(code)


if __name__ == "__main__":
    main()
