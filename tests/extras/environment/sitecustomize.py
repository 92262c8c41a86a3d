"""Lets a torchvision whose compiled part does not fit this torch be imported all the same.

`make test-extras` puts this file into .venv-extras, and only there. There is no CPU build of
torchvision beside the CPU build of torch: the one there is cannot load its operators, and then
fails on import because they are not declared. Declared and, for `nms`, written in plain torch, it
works for all that the optional packages use it for. A torchvision whose operators load is left
alone, and torch is only imported when torchvision is.
"""

import importlib.abc
import importlib.machinery
import sys

_kept = []  # operators live as long as the library that declares them


def _nms(dets, scores, iou_threshold):
    """Greedy non-maximum suppression of boxes [n, 4] (x0 y0 x1 y1); indices, best score first."""
    area = (dets[:, 2:] - dets[:, :2]).prod(dim=1)
    rest = scores.argsort(descending=True, stable=True)
    kept = []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        low = dets[rest, :2].maximum(dets[best, :2])
        high = dets[rest, 2:].minimum(dets[best, 2:])
        common = (high - low).clamp(min=0).prod(dim=1)
        rest = rest[common / (area[rest] + area[best] - common) <= iou_threshold]
    return scores.new_tensor(kept, dtype=rest.dtype)


def _declare_operators():
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    _kept.append(library)


class _Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        if module.__name__ == "torchvision.extension":
            if not module._has_ops():
                _declare_operators()
        elif _kept:  # only now: while it is imported, it would ask for operators of all kinds
            sys.modules["torchvision.extension"]._has_ops = lambda: True


class _Finder(importlib.abc.MetaPathFinder):
    """Looks on while torchvision is imported."""

    def find_spec(self, name, path=None, target=None):
        if name not in ("torchvision", "torchvision.extension"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
