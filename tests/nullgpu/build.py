"""Builds a GPU that does nothing, for a CUDA build of torch on a machine without one: `python build.py OUT` in its environment.

Writes OUT/libnullgpu.so, which is preloaded, and the same under the names by which torch opens the driver and NVML. device.c
answers where an answer is needed; every other function that torch's libraries ask of CUDA's is a stub that says "done". Their
names are read from torch's own libraries, so that any release fits.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

_LIBRARIES = ("c10_cuda", "torch_cuda", "torch_cuda_linalg", "torch_python", "caffe2_nvrtc", "torch_nvshmem")
_OF_CUDA = re.compile(
    r"(__cuda|cuda|cu|cublas|cublasLt|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink)[A-Z]"
)
_LAUNCHES = re.compile(
    r"__cudaLaunchKernel|cudaLaunch(Cooperative)?Kernel|cudaLaunchKernelExC|cuLaunchKernel|cudnnBackendExecute|.*[gG]emm|cublasLtMatmul"
)
_HANDLES = re.compile(r"(?!nvmlInit).*(Create|Init|Alloc|Begin)")  # nvmlInit takes nothing
_WORDS = re.compile(r".*(ErrorString|ErrorName|StatusName|StatusString)$")


def undefined_symbols(folder: Path) -> set[str]:
    """Names that torch's libraries in a folder ask of CUDA's."""
    found: set[str] = set()
    for name in _LIBRARIES:
        path = folder / f"lib{name}.so"
        if path.exists():
            words = ["nm", "-D", "--undefined-only", str(path)]
            listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found |= {line.split()[-1].partition("@")[0] for line in listed.splitlines()}
    # NVML is opened by name, and its functions are asked for by theirs.
    nvml = set(re.findall(rb"\0(nvml[A-Z]\w+)\0", (folder / "libc10_cuda.so").read_bytes()))
    return {name for name in found if _OF_CUDA.match(name)} | {name.decode() for name in nvml} | {"nvmlInit"}


def stub(name: str) -> str:
    """A function in C that does nothing: it counts launches, gives a handle or a word where one is wanted, else 0."""
    if _WORDS.match(name):
        return f'const char *{name}(void) {{ return "null"; }}'
    if _LAUNCHES.match(name):
        return f"int {name}(void) {{ __atomic_add_fetch(&null_launches, 1, __ATOMIC_RELAXED); return 0; }}"
    if _HANDLES.match(name):  # its first argument is the address of the handle, or a small number
        return f"int {name}(void **it) {{ if ((size_t)it > 65536) *it = calloc(1, 4096); return 0; }}"
    return f"int {name}(void) {{ return 0; }}"


def build(out: Path) -> None:
    """Compile both libraries."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None, "needs torch"
    assert spec.origin is not None, spec
    packages = Path(spec.origin).parents[1]
    headers = [*packages.glob("nvidia/cu*/include"), packages / "nvidia/cudnn/include"]
    source = Path(__file__).parent / "device.c"
    answered = set(re.findall(r"^[a-z][\w *]*?\**(\w+)\(", source.read_text(encoding="utf-8"), re.MULTILINE))
    stubs = [stub(name) for name in sorted(undefined_symbols(packages / "torch/lib") - answered)]
    out.mkdir(parents=True, exist_ok=True)
    generated = out / "stubs.c"
    generated.write_text("\n".join(["#include <stdlib.h>", "extern long null_launches;", *stubs, ""]), encoding="utf-8")
    library = out / "libnullgpu.so"
    include = [f"-I{folder}" for folder in headers]
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-w", *include, source, generated, "-o", library], check=True)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(library.name)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
