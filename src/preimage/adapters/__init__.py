"""Thin adapters to the interfaces of other libraries; each needs the extra of its name."""
