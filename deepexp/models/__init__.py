"""Networks that turn a batch of pictures into logits, one module for each, and how their weights begin.

A model is built from what it is given and knows nothing of configs, data sets or training:

    Model(*, shape: (channels, height, width), classes: int, dropout: float | None, batch_norm: bool | None, …)
    model(pictures) -> logits    (batch, channels, height, width) -> (batch, classes)

It can be built on the meta device, raises `ValueError` for arguments that cannot work, and may have

    default_freeze       rules of what stands still at first, where the config has none
    pretrained_modules   names of modules whose weights come from elsewhere, so that `init` leaves them alone
    pretrained_origin    where they come from: `imagenet`, a path, `random` in their place, or None if nobody asked
    fetch_pretrained(…)  of the class, called with the arguments of the YAML before a model is made of them: sees to it
                         that what load_pretrained takes is here, or raises `InputError`
    load_pretrained()    puts them in, once the others have begun
    stem_module          name of the module of its first layers, whose output for a picture depends on it alone
    behind_stem(x)       the logits of what that module gives, into which it does not write: model(pictures) is
                         behind_stem(stem(pictures)), and need not be computed whole while the stem is frozen
"""
