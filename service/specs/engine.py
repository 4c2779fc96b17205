"""The version of the training engine."""

ENGINE_VERSION = 4
"""Increased by hand whenever the results of a spec change, also by an update of the libraries below."""

LIBRARY_VERSIONS = {"pytorch_optimizer": "4.1.0", "schedulefree": "1.4.1", "heavyball": "3.2.1", "timm": "1.0.31"}
"""Libraries whose optimizers or models jobs can name, with the versions that this engine version trains with. torch is
not among them, because runs are compared and resumed with the same version of torch only, nor torchvision, which
belongs to it."""
