"""Run a command as on an x86 processor with AVX2 alone: no AVX-512, no AMX, no bf16.

    python tests/avx2.py python -m pytest
    python tests/avx2.py python benchmarks/precision.py

Three libraries choose their kernels by the processor, each when it is loaded, and each has a
variable that keeps it from using more: torch's own kernels, oneDNN (whose limit also makes torch
take bf16 for unsupported, as on such a processor) and MKL. bf16 then still computes, emulated, at
about a fortieth of float32's speed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
CHECK = """
import torch
assert torch.backends.cpu.get_cpu_capability() == "AVX2", torch.backends.cpu.get_cpu_capability()
assert not torch.ops.mkldnn._is_mkldnn_bf16_supported(), "bf16 is not masked"
"""


def imitated(command: Sequence[str]) -> None:
    """Run a command so; raises CalledProcessError with its status where that is not 0."""
    env = {**os.environ, **AVX2}
    subprocess.run([sys.executable, "-c", CHECK], env=env, check=True)
    subprocess.run(command, env=env, check=True)


if __name__ == "__main__":
    try:
        imitated(sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
