"""How a kernel is watched: workers, clocks, ceilings, the checker and the journal. Knows kernels only as data."""
