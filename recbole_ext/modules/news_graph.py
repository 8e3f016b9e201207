"""News and the entities that they name as a graph; vectors of news from it.

``HopGraph``: what a fixed number of steps gathers is reckoned once, before training (Frasca et
al., SIGN, 2020). ``MessageGraph``: layers over all nodes, once a step (``graph_layers.py``). Edges
come of what is written in the news, so the graph knows news that nobody has seen, and no click.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.content import linear_map
from recbole_ext.modules.feature_table import FeatureTable
from recbole_ext.modules.graph_conv import Csr, csr_of
from recbole_ext.modules.remembered import Remembered


class Edges:
    """Which news name which entities, each pair once.

    Args:
        members: Entities of each news [N, W]; 0 is none.
        n_entities: E, the padding included.

    Attributes:
        news: Of each pair [P], sorted.
        entities: [P].
        present: Which news name one at least [N].
    """

    def __init__(self, members: Tensor, n_entities: int) -> None:
        self.n_news, self.n_entities = len(members), n_entities
        news, place = (members > 0).nonzero().unbind(1)  # [P'] each
        pairs = (news * n_entities + members[news, place]).unique()  # [P]
        self.news, self.entities = pairs // n_entities, pairs % n_entities  # [P] each
        self.present = torch.bincount(self.news, minlength=self.n_news) > 0  # [N]

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Return the ends of all edges [2P] each, both ways; entities stand behind the news."""
        entities = self.entities + self.n_news  # [P]
        return torch.cat([self.news, entities]), torch.cat([entities, self.news])

    def mean(self) -> tuple[Csr, Csr]:
        """Return the mean over a node's neighbours [N + E, N + E], and its transpose."""
        rows, cols = self.nodes()  # [2P] each
        n = self.n_news + self.n_entities
        values = 1.0 / torch.bincount(rows, minlength=n)[rows]  # [2P]
        return csr_of(rows, cols, values, n), csr_of(cols, rows, values, n)


def mean_of_present(to: Tensor, of: Tensor, values: Tensor, n: int) -> Tensor:
    """Return the mean of what has a value, [n, F]; zeros where nothing has.

    Args:
        to: Row of each pair [P].
        of: Which value it takes [P].
        values: [m, F]; rows of zeros are missing.
        n: Rows.
    """
    counts = values.any(1)[of]  # [P]
    to, of = to[counts], of[counts]  # [P'] each
    size = max(n, len(values))
    weights = 1.0 / torch.bincount(to, minlength=size)[to]  # [P']
    padded = F.pad(values, (0, 0, 0, size - len(values)))  # [size, F]
    return (csr_of(to, of, weights, size).matrix() @ padded)[:n]  # [n, F]


class HopGraph(nn.Module):
    """Vectors of news from precomputed hops: entities, and texts of news with the same entities.

    The sum of W_1 x_1, W_2 x_2 and the mean e of the entities' learned vectors, plus the map
    W relu([W_1 x_1; W_2 x_2; e]): x_1 is the mean of the entities' stored vectors, x_2 that over
    entities of the mean text of the news that name them. The news' own text, hop 0, is another
    branch of the model.

    Args:
        edges: The graph.
        hidden_size: D.
        text: Vectors of the news' texts [N, F], zeros where one has none; ``None``: all have none.
        stored: Vectors of the entities [E, F'], the same.
        use_entity_id: Whether entities have learned vectors of their own.
    """

    present: Tensor

    def __init__(
        self,
        edges: Edges,
        hidden_size: int,
        text: Tensor | None,
        stored: Tensor | None,
        use_entity_id: bool,
    ) -> None:
        super().__init__()
        hops, (news, entities) = {}, (edges.news, edges.entities)
        if stored is not None:
            hops["entity"] = mean_of_present(news, entities, stored, edges.n_news)  # [N, F']
        if text is not None:
            of_entity = mean_of_present(entities, news, text, edges.n_entities)  # [E, F]
            hops["text"] = mean_of_present(news, entities, of_entity, edges.n_news)  # [N, F]
        self.hops = nn.ModuleDict({name: FeatureTable(values) for name, values in hops.items()})
        self.maps = nn.ModuleDict(
            {name: linear_map(values.shape[1], hidden_size) for name, values in hops.items()}
        )
        self.entity_embedding: nn.EmbeddingBag | None = None
        if use_entity_id:
            self.entity_embedding = _entity_table(edges.n_entities, hidden_size)
            counts = torch.bincount(news, minlength=edges.n_news)  # [N]
            self.register_buffer("begin", F.pad(counts.cumsum(0), (1, 0)), persistent=False)
            self.register_buffer("entities", entities, persistent=False)
            present = edges.present
        else:
            present = torch.stack([values.any(1) for values in hops.values()]).any(0)  # [N]
        self.register_buffer("present", present, persistent=False)
        n_parts = len(hops) + use_entity_id
        self.out = nn.Linear(n_parts * hidden_size, hidden_size, bias=False)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of news, [n] -> [n, D]."""
        parts = [self.maps[name](F.normalize(hop(ids), dim=1)) for name, hop in self.hops.items()]
        if self.entity_embedding is not None:
            parts.append(self._own(ids))
        branch = self.out(torch.cat(parts, 1).relu())  # [n, D]
        return torch.stack(parts).sum(0) + branch  # [n, D]

    def _own(self, ids: Tensor) -> Tensor:
        """Return the mean of the entities' learned vectors, [n] -> [n, D]."""
        assert self.entity_embedding is not None
        begin, end = self.get_buffer("begin")[ids], self.get_buffer("begin")[ids + 1]  # [n] each
        counts = end - begin  # [n]
        offsets = counts.cumsum(0) - counts  # [n]
        within = torch.arange(int(counts.sum()), device=ids.device)  # [p]
        places = within + (begin - offsets).repeat_interleave(counts)  # [p]
        return self.entity_embedding(self.get_buffer("entities")[places], offsets)  # [n, D]


class MessageGraph(nn.Module):
    """Vectors of news from layers over all nodes, computed once for a step.

    News begin with their mapped text, entities with their mapped stored vector and a learned one;
    what is missing begins with a learned vector of its kind.

    Args:
        edges: The graph.
        hidden_size: D.
        text: As of :class:`HopGraph`.
        stored: As of :class:`HopGraph`.
        use_entity_id: Whether entities have learned vectors of their own.
        layers: Takes the vectors of all nodes [N + E, D] and gives others.
    """

    present: Tensor

    def __init__(
        self,
        edges: Edges,
        hidden_size: int,
        text: Tensor | None,
        stored: Tensor | None,
        use_entity_id: bool,
        layers: nn.Module,
    ) -> None:
        super().__init__()
        self.layers = layers
        features = {"text": text, "entity": stored}
        self.features = nn.ModuleDict(
            {name: FeatureTable(x) for name, x in features.items() if x is not None}
        )
        self.maps = nn.ModuleDict(
            {
                name: linear_map(x.shape[1], hidden_size)
                for name, x in features.items()
                if x is not None
            }
        )
        self.missing = nn.Parameter(torch.randn(2, hidden_size) * 0.1)  # of news, of entities
        self.sizes = {"text": edges.n_news, "entity": edges.n_entities}
        self.entity_embedding = (
            _entity_table(edges.n_entities, hidden_size) if use_entity_id else None
        )
        self.register_buffer("present", edges.present, persistent=False)
        self._remembered = Remembered()

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of news, [n] -> [n, D]."""
        return self._remembered(self, self._all)[ids]

    def _all(self) -> Tensor:
        news, entities = self._first("text", 0), self._first("entity", 1)  # [N, D], [E, D]
        if self.entity_embedding is not None:
            entities = entities + self.entity_embedding.weight
        nodes = self.layers(torch.cat([news, entities]))  # [N + E, D]
        return nodes[: len(news)]  # [N, D]

    def _first(self, kind: str, row: int) -> Tensor:
        missing = self.missing[row].expand(self.sizes[kind], -1)  # [m, D]
        if kind not in self.features:
            return missing
        table = self.features[kind]
        mapped = self.maps[kind](F.normalize(table.get_buffer("weight"), dim=1))  # [m, D]
        return torch.where(table.get_buffer("present").unsqueeze(1), mapped, missing)

    def train(self, mode: bool = True) -> MessageGraph:
        """Set the mode; the vectors of the last evaluation are forgotten."""
        self._remembered.forget()
        return super().train(mode)


def _entity_table(n_entities: int, hidden_size: int) -> nn.EmbeddingBag:
    table = nn.EmbeddingBag(n_entities, hidden_size, mode="mean")
    nn.init.normal_(table.weight, std=hidden_size**-0.5)
    return table
