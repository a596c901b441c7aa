"""Networks that turn a batch of pictures into logits, one module for each, and how their weights are initialised.

A model is built from what it is given and knows nothing of configs, data sets or training:

    Model(*, shape: (channels, height, width), classes: int, dropout: float | None, batch_norm: bool | None, …)
    model(pictures) -> logits    (batch, channels, height, width) -> (batch, classes)

It can be built on the meta device, raises `ValueError` for arguments that cannot work, and may have

    default_freeze       rules for freezing, used where the config has none
    pretrained_modules   names of modules whose weights come from elsewhere, so that `init` leaves them alone
    pretrained_origin    where they come from: `imagenet`, a path, `random` in their place, or None if nobody asked
    fetch_pretrained(…)  a static method, called with the YAML's arguments before a model is made: makes sure that what
                         load_pretrained reads is here, or raises `InputError`
    load_pretrained()    loads these weights, once the others are initialised
    package              the library that it comes from, whose version a run records
    stem_module          name of the module of its first layers, whose output for a picture depends on it alone
    behind_stem(x)       the logits from the stem's output, to which it does not write: model(pictures) is
                         behind_stem(stem(pictures)), so outputs of a frozen stem can be kept
"""
