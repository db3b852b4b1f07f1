"""What finished curves say: smoothing, thinning, the ranking over seeds, and diagnoses.

Pure functions on arrays of numbers; nothing here knows files, torch or a plot.
"""

from lrexp.analysis.decimate import thin
from lrexp.analysis.diagnosis import WORDS, Diagnosis, combine_diagnoses, diagnose
from lrexp.analysis.smooth import anchored, despike, ema, local_linear, zero_lag
from lrexp.analysis.summary import PairedDifference, VariantSummary, summarise
from lrexp.analysis.trace import final_loss

__all__ = [
    "WORDS",
    "Diagnosis",
    "PairedDifference",
    "VariantSummary",
    "anchored",
    "combine_diagnoses",
    "despike",
    "diagnose",
    "ema",
    "final_loss",
    "local_linear",
    "summarise",
    "thin",
    "zero_lag",
]
