from __future__ import annotations

from callbacks.loop import new_toy

from recbole_ext.callbacks.hold import Hold


def names(model, part):
    return [name for name, _ in model.named_parameters() if name.startswith(part)]


def held(model, *parts):
    hold = Hold()
    hold.set(model, [name for part in parts for name in names(model, part)])
    hold.keep_eval()
    return hold


def test_what_is_let_go_within_an_epoch_is_in_train_mode_again():
    model = new_toy().train()
    hold = held(model, "encoder", "head")
    assert not model.encoder.training and not model.head.training
    hold.release()
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_in_eval_mode_stays_in_it():
    model = new_toy().train()
    hold = held(model, "encoder")
    model.eval()
    hold.release()
    assert not any(module.training for module in model.modules())


def test_what_another_still_holds_stays_in_eval_mode():
    model = new_toy().train()
    one, _ = held(model, "encoder", "head"), held(model, "encoder")
    one.release()
    assert not model.encoder.training and model.head.training
