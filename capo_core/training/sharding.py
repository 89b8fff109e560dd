"""A model's frozen layers shared out among the processes that train together, for one that no GPU holds alone."""

from __future__ import annotations

from typing import Any

from capo_core.errors import TrainingError
from capo_core.training.ranks import n_ranks
from schemas.training import OptimisationConfig


def shares_layers(config: OptimisationConfig) -> bool:
    """Return whether this training's processes share out the layers: where asked for, and there are several."""
    return config.fsdp and n_ranks() > 1


def shard_layers(model: Any, device: str) -> Any:
    """Leave each process its share of every layer's frozen weights, in place, and return the model on `device`.

    A layer's weights come together while it computes and part again after it (FSDP, arXiv 2304.11277, by PyTorch's
    `fully_shard`), so that next to its share a process holds one layer or two. The adapter, embeddings, norms outside
    the layers and the vocabulary head stay whole in each: the adapter's gradients are added up by
    `ranks.sum_gradients`, and the head is read without being called.

    Args:
        model: PEFT model on CPU, or on `device` already; the same in each process of the group.
        device: cpu or cuda.

    Raises:
        TrainingError: if the model keeps its layers elsewhere than `get_decoder().layers`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_base_model().get_decoder()
    if not hasattr(decoder, "layers"):
        raise TrainingError(f"fsdp: {type(decoder).__name__} has no list of layers to share out; set fsdp: false")
    mesh = init_device_mesh(device, (n_ranks(),))
    for layer in decoder.layers:
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, mesh=mesh, ignored_params=trained)
    return model.to(device)
