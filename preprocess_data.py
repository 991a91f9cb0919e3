#!/usr/bin/env python3
"""Turn dialogues into masked, memory-mapped token datasets: see README.md, or --help."""

import sys

from mtsft_preproc.cli import preprocess_main

if __name__ == "__main__":
    sys.exit(preprocess_main())
