"""What finished curves say: smoothing, thinning, ranking, diagnoses, verdicts over seeds.

Pure functions on arrays of numbers; nothing here knows files, torch or a plot.
"""

from lrexp.analysis.claims import Comparison, compare_to
from lrexp.analysis.decimate import thin
from lrexp.analysis.diagnosis import WORDS, Diagnosis, combine_diagnoses, diagnose
from lrexp.analysis.noise import Floor, floor_of_noise
from lrexp.analysis.sensitivity import Sensitivity, lr_sensitivity
from lrexp.analysis.smooth import anchored, despike, ema, local_linear, zero_lag
from lrexp.analysis.summary import PairedDifference, VariantSummary, summarise
from lrexp.analysis.target import median_with_misses, time_to
from lrexp.analysis.trace import final_loss

__all__ = [
    "WORDS",
    "Comparison",
    "Diagnosis",
    "Floor",
    "PairedDifference",
    "Sensitivity",
    "VariantSummary",
    "anchored",
    "combine_diagnoses",
    "compare_to",
    "despike",
    "diagnose",
    "ema",
    "final_loss",
    "floor_of_noise",
    "local_linear",
    "lr_sensitivity",
    "median_with_misses",
    "summarise",
    "thin",
    "time_to",
    "zero_lag",
]
