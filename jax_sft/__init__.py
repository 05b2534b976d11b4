"""jax_sft: plan, train, sweep and report studies of reasoning fine-tuning on TPUs."""

__version__ = "0.1.0"
