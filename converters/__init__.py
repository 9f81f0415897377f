"""One module per framework: models to ONNX with every parameter name kept, and back.

Installed as ``onnxmorph.converters``. Importing this package loads no framework;
``onnxmorph.converters.torch`` loads PyTorch.
"""
