"""Built-in models and torchvision's, completed from the facts of the data.

Every model is a plain nn.Module without control flow that depends on values, so that many copies
can be trained at once. None has to be told how wide the data is: `fill_facts` does that.
"""

from lrexp.models.fill import FACTS, FILLED, fill_facts
from lrexp.models.registry import MODELS
from lrexp.models.vision import torchvision_model

__all__ = ["FACTS", "FILLED", "MODELS", "fill_facts", "torchvision_model"]
