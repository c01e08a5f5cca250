"""torch.hub entry points: the zoo's weights under names with and without a dot. Keyword arguments go to timm."""

# The packages that `import tabzoo` needs; training and benchmark need more.
dependencies = ["torch", "timm", "huggingface_hub", "safetensors"]

import tabzoo as _tabzoo


def _entry(_name):
    def load(pretrained=True, **kwargs):
        return _tabzoo.create_model(_name, pretrained=pretrained, **kwargs)

    load.__doc__ = f"{_name}: pretrained (True by default) and any keyword argument of timm.create_model."
    return load


for _name in _tabzoo.list_models():
    globals()[_name] = globals()[_name.replace(".", "_")] = _entry(_name)
