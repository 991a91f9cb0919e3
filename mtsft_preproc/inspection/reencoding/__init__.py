"""Finished datasets, encoded again from their inputs: what a run did, done by the slow and sure ways."""

from mtsft_preproc.inspection.reencoding.against import Against, Kitchen, check_against, check_given
from mtsft_preproc.inspection.reencoding.reencoder import EncodedSample, Reencoder
from mtsft_preproc.inspection.reencoding.rows import records_at
from mtsft_preproc.inspection.reencoding.speaking import Speaker, SpeakingTemplate

__all__ = [
    "Against",
    "EncodedSample",
    "Kitchen",
    "Reencoder",
    "Speaker",
    "SpeakingTemplate",
    "check_against",
    "check_given",
    "records_at",
]
