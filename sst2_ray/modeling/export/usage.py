"""The card's section on use, for each kind of model."""

from __future__ import annotations

from sst2_ray.modeling.sources import ModelInfo


def usage(info: ModelInfo, max_length: int) -> str:
    """Return the card's section on use: code that runs in the folder, without this package."""
    code, tools = (_SBERT_USAGE, _SBERT_TOOLS) if info.kind == "sbert" else (_PIPELINE_USAGE, "")
    if info.text_columns:
        pairs = _SBERT_PAIRS if info.kind == "sbert" else _PIPELINE_PAIRS
        code, tools = code.replace(_TEXTS, pairs).replace("texts", "pairs"), tools.replace("a text", "a pair")
    if len(info.labels) == 1:
        code = code.split("for probabilities in")[0] + "print(logits[:, 0].tolist())" if info.kind == "sbert" else code
        code = code.replace("labels = LABELS\n\n", "")
    code = code.replace("MAX_LENGTH", str(max_length)).replace("LABELS", repr(list(info.labels)))
    return f"## Use\n\n```python\n{code.strip()}\n```{tools}"


_TEXTS = 'texts = ["a gripping , funny film", "it never comes to life"]'

_PIPELINE_PAIRS = 'texts = [{"text": "a man plays a guitar", "text_pair": "a person makes music"}]'

_SBERT_PAIRS = 'texts = [("a man plays a guitar", "a person makes music")]'

_PIPELINE_USAGE = """
from transformers import pipeline

classify = pipeline("text-classification", model=".", dtype="float32")  # "." is this folder
texts = ["a gripping , funny film", "it never comes to life"]
for result in classify(texts, truncation=True, max_length=MAX_LENGTH):
    print(result["label"], round(result["score"], 4))
"""

_SBERT_USAGE = """
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".", device="cpu")  # "." is this folder
labels = LABELS

texts = ["a gripping , funny film", "it never comes to life"]
logits = model.encode(texts, convert_to_tensor=True)
for probabilities in logits.softmax(dim=1):
    print(labels[int(probabilities.argmax())], round(float(probabilities.max()), 4))
"""

_SBERT_TOOLS = """

This is a model for sentence-transformers: what it "encodes" a text to are the logits of the classes, in the order above.
`SentenceTransformer("encoder")` loads the encoder alone, which gives embeddings. transformers has no classifier with this
pooling: `pipeline` and `AutoModelForSequenceClassification` refuse this folder, and would put a random head on
`encoder/`."""
