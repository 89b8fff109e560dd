"""Adapters beside the weights of one model, another one for every row of a batch.

What `merging.merge_adapter` does to a matrix W once and for all is done here to each row's input and output, with
a the row's adapter:

- LoRA: y = W x + s_a B_a A_a x. The A_a stand below one another and so do the B_a, so that all rows go through two
  products whatever their adapters; between the two, what a row got from the other A is set to zero.
- DoRA: y = g_a ⊙ (W x + s_a B_a A_a x), g_a = m_a / ‖W + s_a B_a A_a‖, the norm over each row of the matrix.
- OFT: y = W R_aᵀ x, R_a the block-diagonal rotation of the layer's inputs.

Notation: R rows, Q tokens of each, I inputs, O outputs, N adapters, r_a an adapter's rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.oft import Linear as OFTLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import linear

from capo_core.errors import ModelError
from capo_core.layout.attention import FOLDED
from capo_core.models import check_adapter, choose_device, load_model, read_adapter_settings
from capo_core.quiet import quiet_libraries
from schemas.artifacts import ModelRef
from schemas.training import ModelConfig

_ADAPTER = "default"
_BESIDE_LAYERS = ("modules_to_save", "trainable_token_indices", "target_parameters")
"""Settings of PEFT under which an adapter holds more than what stands beside linear layers."""


class Route:
    """Through which adapter each row of the next passes goes; all layers of a model ask the same one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sent: tuple[int, ...] = ()
        self._rows = torch.empty(0, dtype=torch.long, device=device)
        self._masks: dict[tuple[int, ...], torch.Tensor] = {}

    def send(self, adapters: Sequence[int]) -> None:
        """Send each row through the adapter of that number; where all are the same, there may be any number of rows."""
        if tuple(adapters) != self._sent:
            self._sent = tuple(adapters)
            self._rows = torch.tensor(adapters, device=self._device)
            self._masks = {}

    @property
    def only(self) -> int | None:
        """The adapter of all rows, or None where there are several."""
        return self._sent[0] if len(set(self._sent)) == 1 else None

    @property
    def rows(self) -> torch.Tensor:
        """The adapter of each row (R,)."""
        return self._rows

    def mask(self, ranks: tuple[int, ...]) -> torch.Tensor:
        """Return (R, 1, Σ r), true where a column is of the row's adapter; the columns are those of one after another.

        Args:
            ranks: r of each adapter.
        """
        if ranks not in self._masks:
            owners = torch.repeat_interleave(torch.tensor(ranks)).to(self._device)
            self._masks[ranks] = (self._rows[:, None] == owners)[:, None]
        return self._masks[ranks]


@dataclass(frozen=True, eq=False)
class _Beside:
    """What one adapter has beside one layer: A (r, I) and s B (O, r), g (O,), R as blocks (I / b, b, b)."""

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    gain: torch.Tensor | None = None
    rotation: torch.Tensor | None = None


def load_mixed(model: ModelRef, config: ModelConfig, adapters: Sequence[Path]) -> tuple[Any, Route]:
    """Return a model for generation with several adapters beside its weights, and the route that chooses among them.

    Args:
        model: the base model.
        config: dtype and device; its quantization is for training only.
        adapters: folders of LoRA, DoRA or OFT adapters of this model; the route knows them by their places.

    Raises:
        ModelError: if an adapter is missing, belongs to another base model, or holds what cannot be chosen by row.
    """
    base: Any = load_model(model, config.dtype, choose_device(config.device), FOLDED)
    route = Route(base.device)
    found: dict[str, dict[int, _Beside]] = {}
    for place, folder in enumerate(adapters):
        check_adapter(model, folder)
        _refuse_beyond_layers(folder)
        with quiet_libraries():
            adapted: Any = PeftModel.from_pretrained(base, str(folder))
        with torch.no_grad():
            for name, layer in adapted.base_model.model.named_modules():
                if isinstance(layer, BaseTunerLayer):
                    found.setdefault(name, {})[place] = _read_layer(layer, f"{folder}: {name}")
        base = adapted.unload()
    for name, beside in found.items():
        parent, _, own = name.rpartition(".")
        setattr(base.get_submodule(parent), own, _MixedLinear(base.get_submodule(name), beside, len(adapters), route))
    return base.eval(), route


def _refuse_beyond_layers(folder: Path) -> None:
    settings = read_adapter_settings(folder)
    beyond = [name for name in _BESIDE_LAYERS if settings.get(name)]
    if settings.get("bias", "none") != "none":
        beyond.append("bias")
    if beyond:
        raise ModelError(
            f"{folder}: the adapter changes more than linear layers ({', '.join(beyond)}); adapters like it cannot be "
            "served at once"
        )


def _read_layer(layer: Any, where: str) -> _Beside:
    """Return what an adapter has beside a layer, in the adapter's own precision.

    Raises:
        ModelError: if it is of another kind than the three.
    """
    base, kind = layer.get_base_layer(), type(layer)
    if type(base) is nn.Linear and issubclass(kind, OFTLinear):
        size = layer.oft_block_size[_ADAPTER]
        whole = layer.get_delta_weight(_ADAPTER)
        blocks = whole.view(len(whole) // size, size, len(whole) // size, size).diagonal(dim1=0, dim2=2)
        return _Beside(rotation=blocks.permute(2, 0, 1).clone())
    if type(base) is nn.Linear and issubclass(kind, LoraLinear) and not layer.lora_bias[_ADAPTER]:
        down, up = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight * layer.scaling[_ADAPTER]
        if not layer.lora_variant:
            return _Beside(down.clone(), up)
        if layer.use_dora.get(_ADAPTER):
            norm = torch.linalg.norm(base.weight.float() + up @ down, dim=1)
            return _Beside(down.clone(), up, layer.lora_magnitude_vector[_ADAPTER].weight / norm)
    raise ModelError(f"{where}: this kind of adapter cannot be served beside others; train LoRA, DoRA or OFT")


class _MixedLinear(nn.Module):
    """A linear layer with what several adapters have beside it, each row of its input going through one of them."""

    def __init__(self, base: nn.Linear, beside: Mapping[int, _Beside], n_adapters: int, route: Route) -> None:
        super().__init__()
        weight = base.weight
        self.base, self._route = base, route
        parts = [beside.get(place, _Beside()) for place in range(n_adapters)]
        downs = [weight.new_empty(0, weight.shape[1]) if p.down is None else p.down.to(weight) for p in parts]
        ups = [weight.new_empty(weight.shape[0], 0) if p.up is None else p.up.to(weight) for p in parts]
        self._ranks = tuple(map(len, downs))
        self._starts = [sum(self._ranks[:place]) for place in range(n_adapters + 1)]
        self._downs, self._ups = torch.cat(downs), torch.cat(ups, dim=1).T.contiguous()
        self._gains = None
        if any(p.gain is not None for p in parts):
            one = torch.ones(len(weight), device=weight.device)
            self._gains = torch.stack([one if p.gain is None else p.gain.to(one) for p in parts])
        self._rotations = {place: p.rotation.to(weight) for place, p in enumerate(parts) if p.rotation is not None}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (R, Q, O) of inputs (R, Q, I)."""
        x = self._rotate(x)
        y = self.base(x) if self._gains is None else linear(x, self.base.weight)
        only = self._route.only
        own = slice(None) if only is None else slice(self._starts[only], self._starts[only + 1])
        downs, ups = self._downs[own], self._ups[own]
        if len(downs):
            inner = x @ downs.T
            if only is None:
                inner = inner.masked_fill_(~self._route.mask(self._ranks), 0)
            y.view(-1, y.shape[-1]).addmm_(inner.view(-1, len(downs)), ups)
        if self._gains is None:
            return y
        gains = self._gains[self._route.rows][:, None] if only is None else self._gains[only]
        y = (y * gains).to(x.dtype)
        return y if self.base.bias is None else y + self.base.bias

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        if not self._rotations:
            return x
        only = self._route.only
        if only is not None:
            return _rotate(x, self._rotations[only]) if only in self._rotations else x
        x = x.clone()
        for place, rotation in self._rotations.items():
            own = (self._route.rows == place).nonzero()[:, 0]
            if len(own):
                x[own] = _rotate(x[own], rotation)
        return x


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Return inputs (…, I) rotated block by block."""
    n_blocks, size, _ = rotation.shape
    return torch.einsum("...ns,nst->...nt", x.unflatten(-1, (n_blocks, size)), rotation).flatten(-2)
