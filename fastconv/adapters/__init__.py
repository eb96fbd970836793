"""fastconv as the backend of other projects: one module for each, loaded when it is imported.

========= ==========================================================================================
module    what it gives
========= ==========================================================================================
autograd  `conv`, `conv_transpose`, `max_pool`, `avg_pool` that autograd differentiates, twice too
coursera  the functions of the Deep Learning Specialization's convolution notebook
cs231n    the functions of CS231n's `fast_layers`
dask      `conv`, `max_pool`, `avg_pool`, `predict` on `dask.array`, in chunks of images too
dlfs      `Convolution` and `Pooling` of the book *Deep Learning from Scratch*
jax       the same four as autograd's, under `jit`, `grad` and `vmap` on a CPU
keras     convolution and pooling of Keras's NumPy backend, without JAX
mygrad    `conv_nd` and `max_pool` with MyGrad's signatures
numba     `fastconv.conv` and others inside `@njit` functions; nothing to import
onnx      ``OPS``, the ``new_ops=`` of ONNX's ReferenceEvaluator
scipy     filters of `scipy.ndimage` and convolutions of `scipy.signal`, and in place of SciPy's own
xarray    `conv` and `predict` on `DataArray`: names, coordinates and attributes stay
zarr      `predict` of stored images into a zarr array, in bounded memory, and restartable
========= ==========================================================================================

`fastconv.sklearn` has the estimators for scikit-learn. A host that is not installed gives an
ImportError that names the extra to install.
"""
