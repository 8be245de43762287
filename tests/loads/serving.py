"""Requests a second and their percentiles under load: `python tests/loads/serving.py RUN CHECKPOINT TEXTS.jsonl`.

Three servers, one after the other, are driven by wrk with the texts of a file: ours; the run's graph by plain ONNX
Runtime with transformers' tokenizer, a text at a time; and transformers.pipeline with PyTorch in FP32. The last two are
answered on a thread of the same Starlette and uvicorn. Last, ours is asked at 70 % of its peak, by callers that pause.
What else the machine does is shown before each. Beside the rate stands what the server's process takes of the cores for
a request, which depends less on what else runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

PORT = 8390
CONCURRENCY = tuple(map(int, os.environ.get("CALLERS", "1,2,4,8,16,32,64").split(",")))
SECONDS = int(os.environ.get("LOAD_SECONDS", "5"))
BATCH = ["--max-batch", os.environ["MAX_BATCH"]] if "MAX_BATCH" in os.environ else []
SHARE = 0.7
MANY, TRIES = 32, 8
"""Callers that pause, and how often the pause is set before what they see counts."""
WARM = 50
SCRIPT = """
local texts, at, pause = {}, 0, tonumber(os.getenv("PAUSE") or "0")
for line in io.lines(os.getenv("TEXTS")) do texts[#texts + 1] = line end
wrk.method, wrk.headers["content-type"] = "POST", "application/json"
function request() at = at % #texts + 1; return wrk.format(nil, "/predict", nil, texts[at]) end
if pause > 0 then function delay() return math.floor(-math.log(1 - math.random()) * pause) end end
"""


def main(run: str, checkpoint: str, texts: str) -> None:
    """Print a line for each server and number of callers."""
    threads, workers = os.environ.get("THREADS", "1"), os.environ.get("WORKERS", "2")
    rows = [json.loads(line)["text"] for line in Path(texts).read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        script, bodies = Path(folder, "load.lua"), Path(folder, "bodies")
        script.write_text(SCRIPT, encoding="utf-8")
        bodies.write_text("\n".join(json.dumps({"inputs": row}) for row in rows), encoding="utf-8")
        ours = ["-m", "optimize", "serve", run, "--workers", workers, "--threads", threads, "--quiet", *BATCH]
        servers = {
            "optimize serve": [*ours, "--port", str(PORT)],
            "plain ONNX Runtime": [__file__, "plain", run, checkpoint],
            "transformers, PyTorch FP32": [__file__, "torch", run, checkpoint],
        }
        for name, words in servers.items():
            with_server(words, lambda process, name=name: show(name, script, bodies, process))
        with_server(servers["optimize serve"], lambda process: at_share(script, bodies, process))


def with_server(words: list[str], act: object) -> None:
    """Do something while a server runs."""
    started = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                for _ in range(WARM):
                    ask("A quiet, fine film, and long enough.")
                break
            except OSError:
                time.sleep(0.2)
        act(psutil.Process(started.pid))
    finally:
        started.terminate()
        started.wait(30)


def ask(text: str) -> None:
    """Ask once."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/predict", json.dumps({"inputs": text}).encode())
    request.add_header("content-type", "application/json")
    urllib.request.urlopen(request, timeout=30).close()


def show(name: str, script: Path, bodies: Path, process: psutil.Process) -> None:
    """Ask with every number of callers."""
    print(f"{name}; load average {os.getloadavg()[0]:.1f}", flush=True)
    for callers in CONCURRENCY:
        print(f"  {callers:3d} callers: {measured(callers, script, bodies, process)}", flush=True)


def at_share(script: Path, bodies: Path, process: psutil.Process) -> None:
    """Ask at a share of the peak: callers pause so long, in the mean, that together they ask so often."""
    peak = max(float(measured(callers, script, bodies, process).split()[0]) for callers in (16, 32))
    wanted, pause = MANY / (peak * SHARE) * 1e3, 0.0
    for _ in range(TRIES):
        # A caller asks again after its answer and a pause; how long answers take depends on how often is asked.
        said = measured(MANY, script, bodies, process, pause)
        pause = max(0.0, wanted - (MANY / float(said.split()[0]) * 1e3 - pause))
    print(f"at {SHARE:.0%} of {peak:.0f}/s: {said}; load {os.getloadavg()[0]:.1f}", flush=True)


def measured(callers: int, script: Path, bodies: Path, process: psutil.Process, pause: float = 0.0) -> str:
    """What wrk says of so many callers."""
    words = ["wrk", "-t1", f"-c{callers}", f"-d{SECONDS}s", "--latency", "-s", script, f"http://127.0.0.1:{PORT}"]
    known = os.environ | {"TEXTS": str(bodies), "PAUSE": str(pause)}
    before = sum(process.cpu_times()[:2])
    said = subprocess.run(words, env=known, capture_output=True, text=True, check=True).stdout
    patterns = (r"Requests/sec:\s+(\S+)", r"50%\s+(\S+)", r"99%\s+(\S+)")
    rate, half, most = (re.search(pattern, said)[1] for pattern in patterns)
    requests = int(re.search(r"(\d+) requests in", said)[1])
    cores = (sum(process.cpu_times()[:2]) - before) / max(1, requests) * 1e3
    errors = re.search(r"Non-2xx.*: (\d+)", said)
    return f"{rate} requests/s, p50 {half}, p99 {most}, {cores:.1f} ms of cores each" + (
        f", {errors[1]} refused" if errors else ""
    )


def other(kind: str, run: str, checkpoint: str) -> None:
    """Serve what is compared with, a text at a time on one thread."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    answer = {"plain": plain, "torch": torch_pipeline}[kind](run, checkpoint)
    thread = ThreadPoolExecutor(1)

    async def predict(request: object) -> object:
        text = json.loads(await request.body())["inputs"]
        return JSONResponse(await asyncio.get_running_loop().run_in_executor(thread, answer, text))

    uvicorn.run(Starlette(routes=[Route("/predict", predict, methods=["POST"])]), port=PORT, log_level="error")


def plain(run: str, checkpoint: str) -> object:
    """The run's graph as its card shows it."""
    import numpy as np
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    session = onnxruntime.InferenceSession(f"{run}/model/model.onnx", providers=["CPUExecutionProvider"])

    def answer(text: str) -> object:
        tokens = tokenizer(text, return_tensors="np", truncation=True)
        feed = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        logits = session.run(["logits"], feed)[0][0]
        shares = np.exp(logits - logits.max())
        return {"label": int(shares.argmax()), "score": float(shares.max() / shares.sum())}

    return answer


def torch_pipeline(_: str, checkpoint: str) -> object:
    """The checkpoint in FP32."""
    import torch
    from transformers import pipeline

    return pipeline("text-classification", model=checkpoint, device="cpu", dtype=torch.float32)


if __name__ == "__main__":
    other(*sys.argv[1:]) if sys.argv[1] in ("plain", "torch") else main(*sys.argv[1:])
