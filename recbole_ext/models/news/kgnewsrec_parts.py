"""What KGNewsRec is made of: its graph, the news it has seen, and settings that do not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.modules.graph_conv import SparseGraph
from recbole_ext.modules.graph_layers import GatLayers, SageLayers
from recbole_ext.modules.news_graph import Edges, HopGraph, MessageGraph
from recbole_ext.types import UserError

NORMS = ("l2", "layer")


def build_graph(
    config: Any, members: Tensor, text: Tensor | None, stored: Tensor | None, n_entities: int
) -> nn.Module:
    """Return the graph branch of a setting.

    Args:
        config: The run's settings.
        members: Entities of each news [N, W], 0 is none.
        text: Vectors of the news' texts [N, F].
        stored: Those of entities [E, F'].
        n_entities: E, the padding included.

    Raises:
        UserError: The graph has no edge, or nothing to carry along them.
    """
    edges = Edges(members, n_entities)
    use_entity_id, kind = config["use_entity_id"], config["kg_encoder"]
    if not edges.present.any():
        raise UserError(
            f"use_graph: no news of '{config['dataset']}' names an entity "
            f"({config['ENTITY_FIELD']}); leave the graph out by use_graph: False"
        )
    if text is None and stored is None and not use_entity_id:
        raise UserError(
            "use_graph: there is nothing for the graph to carry; give text_feature or "
            "entity_vectors, or set use_entity_id: True"
        )
    parts = (edges, config["embedding_size"], text, stored, use_entity_id)
    if kind == "sign":
        return HopGraph(*parts)
    size, n_layers = config["embedding_size"], config["n_layers"]
    if kind == "sage":
        return MessageGraph(*parts, SageLayers(SparseGraph(*edges.mean()), size, n_layers))
    n_nodes = edges.n_news + edges.n_entities
    layers = GatLayers(*edges.nodes(), n_nodes, size, n_layers, config["n_heads"])
    return MessageGraph(*parts, layers)


def ids_of_training(dataset: Any, item: str, user: str, history: str) -> Tensor:
    """Return which news an impression of training shows, or a history of its users has [N]."""
    seen = torch.zeros(dataset.item_num, dtype=torch.bool)
    seen[dataset.inter_feat[item]] = True
    seen[dataset.user_feat[history][dataset.inter_feat[user].unique()].flatten()] = True
    seen[0] = False
    return seen


def check_branches(config: Any, dataset: Any) -> None:
    """Refuse news of nothing, and fields that branches and tasks need and the data lack.

    Without the data, ``None``, the former only.
    """
    content = bool(config["text_feature"]) or config["use_graph"]
    if not content and not config["use_id"]:
        raise UserError("use_id, text_feature, use_graph: news have no branch; give one or more")
    if config["category_weight"] > 0 and not content:
        raise UserError(
            "category_weight: the category is told from text and graph, and there is neither; set "
            "it to 0, or give text_feature"
        )
    if dataset is None:
        return
    wanted = {"ENTITY_FIELD": config["use_graph"], "CATEGORY_FIELD": False}
    wanted["CATEGORY_FIELD"] = config["category_weight"] > 0 or config["interest_weight"] > 0
    remedy = {"ENTITY_FIELD": "set use_graph: False"}
    remedy["CATEGORY_FIELD"] = "set category_weight: 0 and interest_weight: 0"
    for key, is_wanted in wanted.items():
        rows = dataset.item_feat
        if is_wanted and (rows is None or config[key] not in rows):
            raise UserError(
                f"dataset '{config['dataset']}' is loaded without '{config[key]}' ({key}), which "
                f"KGNewsRec reads; load it (load_col), or {remedy[key]}"
            )
