"""Holds parameters still, so that several callbacks can freeze parts of one model.

A held parameter has ``requires_grad`` off and no gradient. That is what keeps it exactly where it
is: an optimizer skips a parameter without gradient, its weight decay and its momentum included,
while a gradient of zeros would still let Adam move it.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def switch(parameter: nn.Parameter, trainable: bool) -> None:
    """Let one parameter train, or keep it where it is."""
    parameter.requires_grad_(trainable)
    if not trainable:
        parameter.grad = None


class Hold:
    """The parameters that one callback holds, and the modules that it keeps in eval mode.

    A parameter that two callbacks hold trains again when both have let go, and one that the model
    itself froze is never let go. A module is kept in eval mode when all of its parameters are held,
    so that its dropout is off and its running statistics stay.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: dict[int, nn.Parameter] = {}
        self._modules: list[nn.Module] = []
        self._model: nn.Module | None = None

    def set(self, model: nn.Module, names: Iterable[str]) -> None:
        """Hold exactly the parameters of these names from now on."""
        everything = dict(model.named_parameters(remove_duplicate=False))
        wanted = {id(everything[name]): everything[name] for name in names}
        for key in self._held.keys() - wanted.keys():
            self._let_go(self._held.pop(key))
        for key in wanted.keys() - self._held.keys():
            if self._take(wanted[key]):
                self._held[key] = wanted[key]
        before, self._modules = self._modules, list(_whole_modules(model, wanted.keys()))
        self._model = model
        self._wake_all(before)

    def keep_eval(self) -> None:
        """Put the held modules in eval mode again; RecBole calls ``model.train()`` each epoch."""
        for module in self._modules:
            if module.training:
                module.eval()

    def release(self) -> None:
        """Let go of everything."""
        for parameter in self._held.values():
            self._let_go(parameter)
        before, self._held, self._modules = self._modules, {}, []
        self._wake_all(before)

    def _wake_all(self, modules: list[nn.Module]) -> None:
        """Put modules that were held in train mode again, where the model is in it."""
        if self._model is not None and self._model.training:
            for module in modules:
                _wake(module)

    def _take(self, parameter: nn.Parameter) -> bool:
        holders = vars(parameter).get("_held_by", set())
        if not holders and not parameter.requires_grad:
            return False  # frozen by the model itself, which alone may let it go
        vars(parameter)["_held_by"] = holders | {self}
        switch(parameter, False)
        return True

    def _let_go(self, parameter: nn.Parameter) -> None:
        vars(parameter)["_held_by"] -= {self}
        if not vars(parameter)["_held_by"]:
            del vars(parameter)["_held_by"]
            switch(parameter, True)


def _wake(module: nn.Module) -> None:
    """Put the parts that train back in train mode; what someone still freezes stays as it is."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return
    module.training = True
    for child in module.children():
        _wake(child)


def _whole_modules(module: nn.Module, keys: Iterable[int]) -> Iterable[nn.Module]:
    """Yield the topmost modules all of whose parameters are among ``keys`` (ids)."""
    parameters = list(module.parameters())
    if parameters and all(id(parameter) in keys for parameter in parameters):
        yield module
        return
    for child in module.children():
        yield from _whole_modules(child, keys)
