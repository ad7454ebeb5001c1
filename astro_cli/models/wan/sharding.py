"""Sharding of a `CausalWan` over processes with FSDP 2: each block, then the root."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from astro_cli.models.wan.transformer import CausalWan


def shard(network: CausalWan, mesh: DeviceMesh, precision: MixedPrecisionPolicy | None = None) -> CausalWan:
    """Shard in place: a block's parameters are gathered when it runs, those outside the blocks when the root runs.

    Args:
        mesh: one-dimensional, over the processes that share the weights; any device type, gloo on CPU included.
        precision: dtype of gathered parameters and of reduced gradients; default as they are.

    Returns:
        the same network; passes with a cache, masks, gradient checkpointing and `encode_text` work as before.

    Deviations: none; the released trainers wrap with FSDP 1 and call no method outside `forward`.
    """
    policy = precision or MixedPrecisionPolicy()
    for block in network.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
        for method in ("text_keys_values", "keys_values_only"):  # entry points beside `forward`
            register_fsdp_forward_method(block, method)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(network, "encode_text")
    return network
