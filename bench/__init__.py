"""Measurements that anybody can repeat; each says how in its docstring."""
