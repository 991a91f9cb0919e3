"""Looks whether a finished dataset is whole, and is what its manifest and its ledger say.

From the outside in: the manifest, the files that it names, the structure of the datasets, the samples,
their tokens, the counts, and what became of each record; then, where that is asked for, against the inputs
that it was made of. A failure names the file and the place in it.
"""

from mtsft_preproc.inspection.verify.against import verify_against
from mtsft_preproc.inspection.verify.report import Check, Report
from mtsft_preproc.inspection.verify.run import verify

__all__ = ["Check", "Report", "verify", "verify_against"]
