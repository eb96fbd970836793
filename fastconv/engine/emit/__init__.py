"""LLVM IR of the kernels, and the intrinsics through which the loops call them."""
