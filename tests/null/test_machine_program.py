"""Instructions of a disassembled program: what they are, how wide, and whether the program can come back to them."""

from seqroof.profiler.machine_program import instructions
from seqroof.roofline.inspection import tensor_kind

# A loop from .L_x_2 to its branch. Behind the end stands a block that waits and goes back into the middle, so that all
# lies between a label and a later branch back to it; and a function that is called, whose return names its caller.
PROGRAM = """
.text._step:
        /*0000*/                   LDG.E.128 R4, desc[UR16][R40.64] ;
        /*0010*/              @!P0 BRA `(.L_x_9) ;
.L_x_1:
        /*0020*/                   HGMMA.64x32x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0030*/                   BRA.U !UP1, `(.L_x_3) ;
.L_x_2:
        /*0040*/                   HGMMA.64x32x16.F32.BF16 R24, gdesc[UR8], R24, gsb0 ;
        /*0050*/               @P5 LDGSTS.E.BYPASS.LTC128B.128 [R43], desc[UR16][R40.64], P4 ;
        /*0060*/                   UTMALDG.2D [UR8], [UR4] ;
        /*0070*/                   LDL R3, [R1+0x8] ;
        /*0080*/               @P5 BRA `(.L_x_2) ;
.L_x_3:
        /*0090*/              @!P5 LDG.E.U16.CONSTANT R36, desc[UR16][R34.64] ;
        /*00a0*/                   STG.E desc[UR16][R2.64], R12 ;
        /*00b0*/                   CALL.REL.NOINC `($divide) ;
        /*00c0*/                   STL.64 [R1+0x8], R12 ;
        /*00d0*/                   EXIT ;
.L_x_9:
        /*00e0*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR37], RZ ;
        /*00f0*/              @!P0 BRA `(.L_x_9) ;
        /*0100*/                   BRA `(.L_x_1) ;
$divide:
        /*0110*/                   UTCHMMA gdesc[UR16], gdesc[UR20], tmem[UR10], tmem[UR18], idesc[UR19], UPT ;
        /*0120*/                   RET.REL.NODEC R2 `(.text._step) ;
.L_x_10:
        /*0130*/                   BRA `(.L_x_10);
"""


def test_instructions_with_widths_and_loops():
    found = {entry.name: (entry.group, entry.bits, entry.count, entry.in_loops) for entry in instructions(PROGRAM)}
    assert found == {
        "HGMMA": ("tensor", 0, 2, 1),
        "UTCHMMA": ("tensor", 0, 1, 0),
        "LDG.128": ("load", 128, 1, 0),
        "LDGSTS.128": ("load", 128, 1, 1),
        "LDG.16": ("load", 16, 1, 0),
        "UTMALDG": ("load", 0, 1, 1),
        "STG.32": ("store", 32, 1, 0),
        "LDL.32": ("local", 32, 1, 1),
        "STL.64": ("local", 64, 1, 0),
    }


def test_a_loop_around_a_loop_is_a_loop_too():
    nested = (
        ".L_a:\n/*00*/ HMMA.16816.F32 R0, R1, R2, R0 ;\n.L_b:\n/*10*/ LDG.E R0, [R2.64] ;\n/*20*/ @P0 BRA `(.L_b) ;\n"
    )
    assert [entry.in_loops for entry in instructions(nested)] == [0, 1]
    assert [entry.in_loops for entry in instructions(nested + "/*30*/ @P1 BRA `(.L_a) ;\n")] == [1, 1]


def test_products_are_called_as_in_ptx():
    names = {"HMMA": "mma", "IMMA": "mma", "HGMMA": "wgmma", "QGMMA": "wgmma", "UTCHMMA": "tcgen05"}
    assert {name: tensor_kind(name) for name in names} == names
