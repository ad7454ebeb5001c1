"""The released RAFT files of torchvision, the best first, and where they lie. Free of torch."""

from __future__ import annotations

RAFT_FILES = {
    "raft_large": (
        "raft/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        "raft/raft_large_C_T_SKHT_V1-0b8c9e55.pth",
        "raft/raft_large_C_T_V2-1bb1363a.pth",
        "raft/raft_large_C_T_V1-22a6c225.pth",
        "raft/raft_large.safetensors",
    ),
    "raft_small": (
        "raft/raft_small_C_T_V2-01064c6d.pth",
        "raft/raft_small_C_T_V1-ad48884c.pth",
        "raft/raft_small.safetensors",
    ),
}
