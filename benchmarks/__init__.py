"""Speed and memory of rtsx, measured side by side with the bare network and with others' ways; `python -m benchmarks`."""
