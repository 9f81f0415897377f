"""Ops whose axes always stay, and why."""

from __future__ import annotations

from onnxmorph.rules.table import Cost, fixed

fixed("NonZero Unique", "values", "gives as many positions as its input's values say", Cost("a"))
fixed("NonMaxSuppression", "values", "gives the numbers of those boxes that its input's values say", Cost("a"))
fixed(
    "SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceAt SequenceLength SplitToSequence "
    "ConcatFromSequence",
    "sequence",
    "keeps tensors in a sequence, each of a shape of its own",
)
fixed("Optional OptionalGetElement OptionalHasElement", "optional", "deals with a value that may be absent")
fixed("StringConcat StringNormalizer StringSplit RegexFullMatch", "text", "works on text")
fixed("TfIdfVectorizer", "text", "counts sequences of words, each at a position of its own", Cost("a"))
fixed("ImageDecoder", "file", "reads an image file")

fixed(
    "ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder "
    "LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble "
    "TreeEnsembleClassifier TreeEnsembleRegressor ZipMap",
    "classical",
    "belongs to a classical model, whose parameters are attributes",
    Cost("a"),
    domain="ai.onnx.ml",
)
fixed(
    "Adagrad Adam Gradient Momentum",
    "training",
    "is a step of training; export the network for inference",
    Cost("a"),
    domain="ai.onnx.preview.training",
)
