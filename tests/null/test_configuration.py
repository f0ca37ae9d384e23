"""What is stored of a chosen configuration, with compiled kernels that the test owns."""

from types import SimpleNamespace

from round_machine import point, timing

from seqroof.profiler.configuration import declared, facts_of, launched
from seqroof.profiler.points import recalled


class Compiled:
    """A compiled Triton kernel."""

    def __init__(self, registers, name="_step"):
        self.metadata = SimpleNamespace(
            name=name, num_warps=4, num_stages=2, num_ctas=1, shared=1024, enable_fp_fusion=True
        )
        self.n_regs, self.n_spills, self.asm = registers, 0, {"cubin": b"program"}
        function = SimpleNamespace(arg_names=["x", "BLOCK"])
        self.src = SimpleNamespace(constants={(1,): 64, (0, 1): 3}, fn=function)


def test_launched_kernels_are_collected_with_their_configuration():
    class Function:
        def run(self, kernel, grid):
            return kernel

    one, other = Compiled(40), Compiled(50)
    with launched(Function) as kernels:
        for kernel in (one, other, one, None):
            Function().run(kernel, grid=(1,))
    assert "run" not in Function.run.__qualname__.replace("Function.run", ""), "the class is as it was"
    facts = facts_of(kernels)
    assert facts["_step: registers"] == 40 and facts["_step 2: registers"] == 50
    assert facts["_step: tile"] == "BLOCK=64" and facts["_step: fused multiply-add"] == "on"
    assert len(facts["_step: cubin"]) == 16


def test_what_a_kernel_does_not_tell_is_null():
    facts = facts_of({1: SimpleNamespace(name="bare")})
    assert facts and set(facts.values()) == {None}


def test_versions_are_declared_of_those_they_choose_for():
    assert "triton" in declared("triton_step") and {"torch.compile", "c++"} <= set(declared("compile"))
    assert declared("torch.flash") == {}


def test_a_point_of_an_earlier_journal_is_held_to_the_versions_of_now():
    old = point(timing(2e-5), implementation="triton", compiler={"triton": "3.6.0"}).model_dump(mode="json")
    assert [w.id for w in recalled(old, {"triton": {"compiler": {"triton": "3.9.0"}}}).warnings] == [
        "configuration-differs"
    ]
    assert recalled(old, {}).warnings == () and recalled(old, {"triton": {"compiler": {}}}).warnings == ()
