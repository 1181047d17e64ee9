"""Models of other libraries as denoisers of ours. Needs nothing of theirs before one is given."""

from symguide.integrations.azula import from_azula
from symguide.integrations.diffusers import from_diffusers, text_condition
from symguide.integrations.generator import from_generator

__all__ = ["from_azula", "from_diffusers", "from_generator", "text_condition"]
