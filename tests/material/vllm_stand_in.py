"""`vllm serve` as far as capo asks it, computed by transformers and PEFT one token after the other, no cache.

That vLLM answers the same is what `tests/capo_core/generation/vllm/test_vllm_itself.py` shows, of vLLM 0.32.
CAPO_STAND_IN says how it fails: `dies` before it answers, `refuses` every completion, `leaves` at the first one.
"""

from __future__ import annotations

import argparse
import json
import os
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

VERSION = "0.0.stand-in"


def write_command(folder: Path) -> Path:
    """Return an executable file that stands for the command `vllm`."""
    command = folder / "vllm"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
    command.chmod(0o700)
    return command


class Served:
    """The model with its adapter: `complete` answers as `/v1/completions` does."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
        self.names = {arguments.served_model_name}
        self.ends = model.generation_config.eos_token_id
        for module in arguments.lora_modules:
            name, _, folder = module.partition("=")
            self.names.add(name)
            model = PeftModel.from_pretrained(model, folder)
        self.model = model.eval()

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["model"] in self.names
        prompts = request["prompt"] if isinstance(request["prompt"][0], list) else [request["prompt"]]
        choices = [self.answer(prompt, request) | {"index": index} for index, prompt in enumerate(prompts)]
        return {"choices": choices[::-1]}  # vLLM promises no order

    def answer(self, prompt: list[int], request: dict[str, Any]) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(request.get("seed", 0))
        stop = {*request.get("stop_token_ids", []), self.ends}
        written: list[int] = []
        while len(written) < request["max_tokens"] and not (written and written[-1] in stop):
            logits = self.model(torch.tensor([prompt + written])).logits[0, -1].double()
            if request["temperature"] == 0:
                written.append(int(logits.argmax()))
            else:
                shares = (logits / request["temperature"]).softmax(0)
                written.append(int(torch.multinomial(shares, 1, generator=generator)))
        ended = bool(written) and written[-1] in stop
        choice: dict[str, Any] = {"token_ids": written, "finish_reason": "stop" if ended else "length"}
        if request.get("prompt_logprobs") is not None:
            logps = self.model(torch.tensor([prompt])).logits[0].double().log_softmax(-1)
            places = [{str(token): {"logprob": float(logps[at, token])}} for at, token in enumerate(prompt[1:])]
            choice["prompt_logprobs"] = [None, *places]
        return choice


class Handler(BaseHTTPRequestHandler):
    """The three paths that are asked."""

    served: Served

    def do_GET(self) -> None:
        self.reply(200, {"version": VERSION} if self.path == "/version" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        failure = os.environ.get("CAPO_STAND_IN")
        if failure == "leaves":
            sys.stderr.write("out of memory\n")
            sys.stderr.flush()
            os._exit(1)
        if failure == "refuses":
            self.reply(400, {"error": {"message": "the prompt is too long"}})
            return
        with torch.inference_mode():
            self.reply(200, self.served.complete(body))

    def reply(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "socket"


class Server(socketserver.ThreadingUnixStreamServer):
    """Lets as many wait to be connected as vLLM does."""

    request_queue_size = 2048
    daemon_threads = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for name in ("--served-model-name", "--dtype", "--generation-config", "--max-lora-rank", "--max-loras", "--uds"):
        parser.add_argument(name)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="*", default=[])
    parser.add_argument("--lora-target-modules", nargs="*")
    arguments = parser.parse_args()
    if os.environ.get("CAPO_STAND_IN") == "dies":
        sys.exit("no device to compute on")
    torch.set_num_threads(1)
    Handler.served = Served(arguments)
    with Server(arguments.uds, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
