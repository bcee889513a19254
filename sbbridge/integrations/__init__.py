"""Adapters to other people's interfaces."""
