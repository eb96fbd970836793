"""fastconv as the backend of other projects: one module per host, each loaded when it is imported.

============================ ============================= ========================================
module                       host                          what it does
============================ ============================= ========================================
``fastconv.adapters.onnx``   ONNX's ReferenceEvaluator     ``OPS`` for ``new_ops=``; export to ONNX
``fastconv.adapters.keras``  Keras, NumPy backend          convolution and pooling, without JAX
============================ ============================= ========================================

A host that is not installed gives an ImportError that names the extra to install.
"""
