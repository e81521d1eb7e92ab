"""What boundlab costs: time, memory and tightness, beside auto_LiRPA where that is importable. `python -m benchmarks --help`.

How it is measured, and why that is fair, is written on docs/performance.md.
"""
