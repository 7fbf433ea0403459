"""The benchmark: what a TLS proxy's processes cost per unit of work, ours beside the well-known ones.

One command, `python -m bench`, builds a small network of its own, puts the same backend behind each proxy, drives the
same load through each in turn, and prints CPU and memory per unit. `docs/benchmark.md` says what is measured and why.

Inside: `network` (namespaces), `ports` (the address plan), `processes` (start, stop, CPU, memory), `certificates`,
`backend`, `proxies` (one class each), `loads` (what is compared), `sections` (what attls alone is asked), `quota` (less
than a core), `generator` and `sink` (the two ends, programs of their own), `run` (the order of it all), `report`
(medians, tables, JSON), `plot` and `publish` (charts, the documentation), `machine` (where it ran), `profile` (what one
worker spends its time on). Configuration files are in `config/`.
"""
