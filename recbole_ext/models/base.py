"""The one base class of ours: a model states its losses by name, RecBole gets their sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from recbole_ext.types import Losses


class ExtRecommender:
    """Mixin that stands before one of RecBole's recommender classes in the bases of a model.

    A subclass writes ``losses``, ``predict`` and ``full_sort_predict``. Callbacks see the single
    losses; RecBole's own trainer calls ``calculate_loss`` and needs to know nothing of us.

    Attributes that a subclass may set, read when the data are built:
        dataset_class: RecBole ``Dataset`` subclass to use instead of RecBole's choice.
        history_fields: Settings that name the fields whose histories the model reads beside the
            items' (``TIME_FIELD``), ``None`` for all fields; ``PrefixDataset`` builds no others.
        train_loader_class: ``TrainDataLoader`` subclass, or a class method that takes the config
            and returns one.
        warm_start: Name of the model to pretrain when none is given, or ``None``.
    """

    dataset_class: Any = None
    history_fields: tuple[str, ...] | None = None
    train_loader_class: Any = None
    warm_start: str | None = None

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant; called before data are read, and again.

        Args:
            config: The run's settings.
            train_dataset: The training split; ``None`` before the data are read, for what can be
                said without them.

        Raises:
            UserError: Naming the key, the value and what it takes.
        """

    def __str__(self) -> str:
        """Return the modules and the number of trainable parameters, which RecBole has as float."""
        n_parameters = sum(p.numel() for p in self.parameters() if p.requires_grad)  # type: ignore[attr-defined]
        return f"{nn.Module.__repr__(self)}\nTrainable parameters: {n_parameters}"  # type: ignore[arg-type]

    def losses(self, interaction: Any) -> Losses:
        """Return the named scalar losses of a batch."""
        raise NotImplementedError(f"{type(self).__name__} has no losses()")

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the training loss, a scalar: the sum of :meth:`losses`."""
        return sum(self.losses(interaction).values())  # type: ignore[return-value]
