"""Texts that data formats define themselves, in the place of a model's chat format.

To add one: write one file with a :class:`~mtsft_preproc.templates.text_forms.form.TextForm` and list
it here.
"""

from mtsft_preproc.registry import Registry
from mtsft_preproc.templates.text_forms.alpaca_text import AlpacaText
from mtsft_preproc.templates.text_forms.chatglm_rounds import ChatGLMRounds
from mtsft_preproc.templates.text_forms.documents import encode_documents
from mtsft_preproc.templates.text_forms.form import TextForm
from mtsft_preproc.templates.text_forms.moss_baichuan import MossBaichuan
from mtsft_preproc.templates.text_forms.moss_text import MossText
from mtsft_preproc.templates.text_forms.passages import Constant, Owner, Passage, Rendering, Span
from mtsft_preproc.templates.text_forms.text_template import TextTemplate

#: All text forms, by the names that handlers know them by.
text_forms: Registry[type[TextForm]] = Registry("text form", "text_form")
for _form in (AlpacaText, MossText, MossBaichuan, ChatGLMRounds):
    text_forms.add(_form.name, _form)

__all__ = [
    "Constant",
    "Owner",
    "Passage",
    "Rendering",
    "Span",
    "TextForm",
    "TextTemplate",
    "encode_documents",
    "text_forms",
]
