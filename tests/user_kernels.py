"""Kernel files as a user might write them, right and wrong, for tests that profile them."""

GOOD = '''
"""y = a x: scales a vector. B rows of N values."""
import os, sys, time
from dataclasses import dataclass
import torch
from seqroof.roofline import Implementation, Work
from seqroof.roofline.work import terms

@dataclass(frozen=True)
class Shape:
    B: int
    N: int = 64
    def __post_init__(self):
        if min(self.B, self.N) < 1:
            raise ValueError(f"B={self.B} and N={self.N} must be at least 1")

SHAPES = {"quick": [Shape(2), Shape(3, 50)]}

def inputs(shape, dtype, device, seed):
    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    source = torch.Generator(device=device).manual_seed(seed)
    return {"x": torch.randn(shape.B, shape.N, generator=source, device=device).to(kinds[dtype])}

def reference(shape, x):
    return (x * 2,)

def work(shape, dtype, direction):
    size = (4 if dtype in ("fp32", "tf32") else 2) * shape.B * shape.N
    lines = terms("read_bytes", ("x", size, "once")) + terms("write_bytes", ("y", size, "once"))
    return Work(terms=lines + terms("pointwise_flops", ("product", shape.B * shape.N, "one each")))

def faulty(shape, x):
    {fault}
    return (x * 2,)

IMPLEMENTATIONS = {"reference": Implementation(reference, grad=True), "torch": Implementation(faulty)}
'''


def kernel_file(folder, name="mine", fault="pass", text=GOOD):
    """Write a kernel file whose `torch` implementation does `fault` first; returns its path."""
    path = folder / f"{name}.py"
    path.write_text(text.replace("{fault}", fault))
    return path
