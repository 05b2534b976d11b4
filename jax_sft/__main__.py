"""`python -m jax_sft` is `jax-sft`."""

import sys

from jax_sft.cli.main import main

sys.exit(main())
