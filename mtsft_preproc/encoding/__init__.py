"""A batch of records -> the tokens of samples: the pure core of a task.

What comes out depends on the objective of the handler: samples to fine-tune on, pairs of them, prompts, or
text documents. Each objective is a class here, and says which datasets it fills.
"""

from mtsft_preproc.encoding.batch import DatasetSpec, EncodedBatch, RecordEncoder
from mtsft_preproc.encoding.make import (
    Tools,
    datasets_of,
    datasets_of_objective,
    make_record_encoder,
)
from mtsft_preproc.encoding.prompts import REPLY
from mtsft_preproc.encoding.sft import SampleEncoder

__all__ = [
    "REPLY",
    "DatasetSpec",
    "EncodedBatch",
    "RecordEncoder",
    "SampleEncoder",
    "Tools",
    "datasets_of",
    "datasets_of_objective",
    "make_record_encoder",
]
