"""One module per framework: models to ONNX with every parameter name kept, and back.

Installed as ``onnxmorph.converters``. Importing this package loads no framework;
``onnxmorph.converters.torch`` loads PyTorch.
"""

#: Key in ``model.metadata_props``: JSON, the floating-point initializers that the framework does not train.
BUFFERS = "onnxmorph.buffers"
