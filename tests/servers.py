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

import ctypes
import http.client
import json
import os
import pathlib
import secrets
import shutil
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
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


class Stopped(Exception):
    """A signal asks this program to stop."""

    def __init__(self, number, _frame=None):
        # What is being torn down must not be torn down twice.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        self.number = number


def stop(number, frame):
    raise Stopped(number, frame)


def free_ports(count):
    """Ports that were free a moment ago; all are held at once, so that they differ."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def weed_arguments(folder, ports):
    """SeaweedFS as one process that listens on loopback only and tells nobody about it."""
    (folder / "data").mkdir()
    names = ["master.port", "volume.port", "filer.port", "s3.port"]
    names += [name + ".grpc" for name in names]
    options = dict(zip(names, ports))
    options.update({
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": folder / "data",
        "master.telemetry": "false",
        # Every bucket gets volumes of its own; nothing is allocated before it is written.
        "master.volumeSizeLimitMB": 64,
        "volume.max": 10000,
        "volume.minFreeSpace": "64MiB",
        # There is no cluster that must hear of the end first.
        "volume.preStopSeconds": 0,
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.config": folder / "s3.json",
        "s3.localSocket": folder / "s3.sock",
        # As on AWS, a missing bucket is an error.
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    })
    return [f"-{name}={value}" for name, value in options.items()]


def start_weed(folder, keys):
    """Starts one server; returns its process and the port of S3 without waiting for it."""
    identity = {
        "name": "walrust",
        "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(8)
    # HOME and the working folder are searched for configuration, variables override it.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder),
                   "TMPDIR": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    with open(folder / "log", "wb") as log:
        weed = subprocess.Popen(
            [BIN / "weed", "-logtostderr=true", "server", *weed_arguments(folder, ports)],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            # A group of its own: Ctrl-C must not end the server under tests that clean up. If this
            # program is killed, the server goes with it.
            start_new_session=True,
            preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    return weed, ports[0], ports[3]


def answer(port, path):
    """The body of a GET, or nothing while the server does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().read() or b" "
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()


def is_ready(master, s3):
    """S3 answers before the master knows a place for data, and would refuse a PUT."""
    try:
        topology = json.loads(answer(master, "/dir/status"))["Topology"]
    except (ValueError, KeyError, TypeError):
        return False
    return topology.get("Free", 0) > 0 and bool(answer(s3, "/"))


def wait_until_ready(weed, master, s3):
    """True when the server takes data, False when it ended or the deadline passed."""
    deadline = time.monotonic() + START_SECONDS
    while weed.poll() is None and time.monotonic() < deadline:
        if is_ready(master, s3):
            return True
        time.sleep(0.05)
    return False


def end(process, number=signal.SIGTERM):
    """Asks a process to end, and makes it end if it does not."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(number)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_orphans():
    """Kills what the command left running: as subreaper this program has inherited it."""
    children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := children.read_text().split()):
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def run(command, folder):
    """Server up, command, server down; returns the exit code."""
    keys = secrets.token_hex(10).upper(), secrets.token_hex(20)
    weed = child = None
    try:
        for attempt in range(STARTS):
            # Another process may have taken one of the ports: that ends the server at once.
            place = folder / str(attempt)
            place.mkdir()
            weed, master, s3 = start_weed(place, keys)
            if wait_until_ready(weed, master, s3):
                break
            if weed.poll() is None or attempt == STARTS - 1:
                tail = (place / "log").read_text(errors="replace").splitlines()[-40:]
                print("the S3 server did not start:", *tail, sep="\n", file=sys.stderr)
                return 1
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        environment.update({
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "WALRUST_TEST_S3_ENDPOINT": f"http://127.0.0.1:{s3}",
            "WALRUST_TEST_S3_ACCESS_KEY": keys[0],
            "WALRUST_TEST_S3_SECRET_KEY": keys[1],
            "WALRUST_TEST_LITESTREAM": str(BIN / "litestream"),
        })
        child = subprocess.Popen(command, env=environment)
        code = child.wait()
        return code if code >= 0 else 128 - code
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    except Stopped as stopped:
        # A terminal has sent its SIGINT to the command too; two would make nextest impatient.
        if child is not None and stopped.number == signal.SIGINT:
            try:
                child.wait(STOP_SECONDS / 2)
            except subprocess.TimeoutExpired:
                pass
        return 128 + stopped.number
    finally:
        end(child)
        end(weed)
        end_orphans()


def main():
    arguments = sys.argv[1:]
    if len(arguments) < 2 or arguments[0] != "--":
        sys.exit(__doc__)
    missing = [name for name in ("weed", "litestream") if not (BIN / name).is_file()]
    if missing:
        sys.exit(f"{', '.join(missing)} missing in {BIN}: run `make tools`")
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="walrust-servers-"))
    code = 1
    try:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, stop)
        code = run(arguments[1:], folder)
    except Stopped as stopped:
        code = 128 + stopped.number
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
