"""The package list, which pyproject.toml cannot say: what is found, and one folder under another name."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["onnxmorph", "onnxmorph.*"]), "onnxmorph.converters"])
