"""The commands of the README, run as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PENSTOCK = Path(sys.executable).parent / "penstock"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PENSTOCK, *arguments], cwd=ROOT, env=os.environ | environment, check=False, capture_output=True, text=True, timeout=280
    )


def test_the_demo_answers_over_grpc_and_http_shows_the_trace_and_exits_0(tmp_path: Path) -> None:
    done = run("demo", "--data-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ingested 240 documents" in done.stdout + done.stderr
    # What a quantised model answers depends on the processor; that both ways get the same answer does not.
    over_grpc, over_http = done.stdout.split("HTTP  POST")
    answer = json.JSONDecoder().raw_decode(over_http[over_http.index("{") :].replace("\n", " "))[0]["answer"]
    assert answer.strip()
    assert answer.split() == over_grpc[over_grpc.index("passages\n") + 9 : over_grpc.index("\nsources")].split()
    assert over_grpc.count("xq-00-2#0") == over_http.count("xq-00-2#0") == 1, "the passage that has the answer"
    for service in ("gateway", "retrieval", "generation"):
        assert f"{service} " in done.stdout[done.stdout.index("trace ") :]
    again = run("demo", "--data-dir", str(tmp_path))
    assert again.returncode == 0
    assert "ingested" not in again.stdout + again.stderr, "the second run reuses what the first ingested"


def test_a_demo_that_fails_names_the_service_and_why(tmp_path: Path) -> None:
    done = run("demo", "--data-dir", str(tmp_path), PENSTOCK_GENERATION_MODEL="package:no_such_package/model.gguf")
    assert done.returncode == 1
    assert "starting the services failed" in done.stderr
    assert "generation" in done.stderr
    assert "no_such_package" in done.stderr


def test_up_keeps_running_and_drains_on_ctrl_c(tmp_path: Path) -> None:
    ports = {
        f"PENSTOCK_{name}_{kind}_ADDRESS": "127.0.0.1:0"
        for name in ("GATEWAY", "RETRIEVAL", "GENERATION")
        for kind in ("GRPC", "HTTP")
    }
    output = (tmp_path / "out").open("w+")
    process = subprocess.Popen(
        [PENSTOCK, "up", "--data-dir", str(tmp_path), "--examples", ""],
        cwd=ROOT, env=os.environ | ports, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if "Ctrl-C" in (tmp_path / "out").read_text():
                break
            time.sleep(0.1)
        children = psutil.Process(process.pid).children()
        assert len(children) == 3
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    finally:
        process.kill()
        output.close()
    text = (tmp_path / "out").read_text()
    assert "curl" in text
    assert "grpcurl" in text
    assert "stopped" in text


def test_services_do_not_outlive_a_command_that_was_killed(tmp_path: Path) -> None:
    ports = {f"PENSTOCK_{name}_GRPC_ADDRESS": "127.0.0.1:0" for name in ("GATEWAY", "RETRIEVAL", "GENERATION")}
    ports |= {name.replace("GRPC", "HTTP"): address for name, address in ports.items()}
    process = subprocess.Popen(
        [PENSTOCK, "up", "--data-dir", str(tmp_path), "--examples", ""],
        cwd=ROOT, env=os.environ | ports, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(300):
        children = psutil.Process(process.pid).children()
        if len(children) >= 2 and all("-m" in child.cmdline() for child in children):
            break
        time.sleep(0.1)
    process.kill()
    process.wait(10)
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone) >= 2, alive) == (True, [])
