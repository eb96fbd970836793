"""fastconv inside other projects: one module for each, imported when it is asked for.

========= ==========================================================================================
module    what it gives
========= ==========================================================================================
autograd  `conv`, `conv_transpose`, `max_pool`, `avg_pool` that autograd differentiates, twice too
coursera  the functions of the Deep Learning Specialization's convolution notebook
cs231n    the functions of CS231n's `fast_layers`
jax       the same four under `jit`, `grad` and `vmap` on a CPU
mygrad    `conv_nd` and `max_pool` with MyGrad's signatures
numba     `fastconv.conv` and others inside `@njit` functions; nothing to import
========= ==========================================================================================

`fastconv.sklearn` has the estimators for scikit-learn.
"""
