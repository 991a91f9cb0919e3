"""A model's own chat template (Jinja): rendered as transformers does, with a mask that is proven."""

from mtsft_preproc.templates.chat.chat_template import ChatTemplate
from mtsft_preproc.templates.chat.parity import prompts_of
from mtsft_preproc.templates.chat.rendering import ChatRenderer
from mtsft_preproc.templates.chat.shape_proofs import ShapeDifference, ShapeDiffers

__all__ = ["ChatRenderer", "ChatTemplate", "ShapeDifference", "ShapeDiffers", "prompts_of"]
