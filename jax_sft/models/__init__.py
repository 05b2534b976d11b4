"""One decoder for every family, its kernels, and its weights on disk."""

from typing import Any

Params = dict[str, Any]
"""The tree of a model's parameters: nested dictionaries, the layers' stacked."""
