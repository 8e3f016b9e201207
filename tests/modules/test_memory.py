"""Rows, ranges, random places, and the keeper's promise: the memory is that of the weights."""

from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from recbole_ext.modules import memory as memory_module
from recbole_ext.modules import memory_keeper
from recbole_ext.modules.big_tensor import Room
from recbole_ext.modules.memory import Memory, MemoryRows, _percentile, random_places
from recbole_ext.modules.memory_keeper import MemoryKeeper
from recbole_ext.modules.retriever import Retriever

USERS = torch.tensor([3, 1, 1, 5, 3, 1])  # not sorted: a memory must not depend on it
R, L, N, D = 6, 4, 8, 6


def rows() -> MemoryRows:
    length = torch.tensor([1, 2, 3, 4, 2, 1])
    item_seq = torch.arange(1, R * L + 1).view(R, L) % (N - 1) + 1
    item_seq = item_seq * (torch.arange(L) < length[:, None])
    return MemoryRows(item_seq, length, torch.tensor([1, 2, 3, 4, 5, 6]), USERS)


class MeanEncoder(nn.Module):
    """The mean of the items' embeddings, with dropout that training would apply."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(N, D)
        self.dropout = nn.Dropout(0.5)

    def forward(self, item_seq, item_seq_len):
        emb = self.dropout(self.embedding(item_seq)) * (item_seq > 0).unsqueeze(-1)
        return emb.sum(1) / item_seq_len.unsqueeze(1)


def keeper(snapshot_encoder: bool = False, **options) -> MemoryKeeper:
    torch.manual_seed(0)
    retriever = Retriever(D, inner_size=4)
    return MemoryKeeper(
        rows(), MeanEncoder(), retriever.blocks, snapshot_encoder=snapshot_encoder, **options
    )


def encoded(memory_rows: MemoryRows, encoder: nn.Module) -> torch.Tensor:
    """Return the states of all rows, [R, D] by place."""
    states = torch.full((len(memory_rows), D), torch.nan)
    for row_ids, found in memory_rows.encode(encoder, "cpu"):
        states[memory_rows.place[row_ids]] = found
    return states


def shake(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape))


def test_places_are_sorted_by_user_and_row_ids_map_to_them():
    memory_rows = rows()
    assert memory_rows.users.tolist() == [1, 1, 1, 3, 3, 5]
    assert memory_rows.order.tolist() == [1, 2, 5, 0, 4, 3]
    assert memory_rows.order[memory_rows.place].tolist() == list(range(R))
    assert memory_rows.targets.tolist() == [2, 3, 6, 1, 5, 4]


def test_rows_that_are_not_in_the_order_of_time_are_sorted_by_it():
    """As split files may have them: what came later must be a range behind the row itself."""
    users = torch.tensor([3, 1, 3, 1, 3])
    times = torch.tensor([5.0, 2.0, 4.0, 1.0, 6.0])
    items = torch.tensor([[1, 0], [2, 0], [3, 0], [4, 0], [5, 0]])
    lengths = torch.ones(5, dtype=torch.long)
    memory_rows = MemoryRows(items, lengths, torch.arange(5) + 10, users, times)
    assert memory_rows.order.tolist() == [3, 1, 2, 0, 4]
    hidden = memory_rows.excluded("row_and_later", users, torch.arange(5))
    later = [sorted(memory_rows.order[a:b].tolist()) for a, b in hidden.tolist()]
    assert later == [
        [r for r in range(5) if users[r] == users[i] and times[r] >= times[i]] for i in range(5)
    ]
    both = memory_rows.extended(
        MemoryRows(items[:1], lengths[:1], torch.tensor([20]), torch.tensor([1]), times[:1] + 9)
    )
    assert both.order.tolist() == [3, 1, 5, 2, 0, 4]


def test_policy_user_hides_all_rows_of_the_user():
    memory_rows = rows()
    ranges = memory_rows.excluded("user", torch.tensor([1, 3, 2, 5, 6, 99]))
    hidden = [memory_rows.order[a:b].tolist() for a, b in ranges.tolist()]
    assert hidden == [[1, 2, 5], [0, 4], [], [3], [], []]


def test_policy_row_and_later_hides_the_row_and_what_came_after():
    memory_rows = rows()
    users, row_id = torch.tensor([1, 1, 1, 3]), torch.tensor([1, 2, 5, 4])
    ranges = memory_rows.excluded("row_and_later", users, row_id)
    hidden = [memory_rows.order[a:b].tolist() for a, b in ranges.tolist()]
    assert hidden == [[1, 2, 5], [2, 5], [5], [4]]


def test_policy_row_and_later_hides_nothing_from_a_query_after_training():
    memory_rows = rows()
    for row_id in (None, torch.tensor([-1, -1])):
        ranges = memory_rows.excluded("row_and_later", torch.tensor([1, 3]), row_id)
        assert (ranges[:, 0] == ranges[:, 1]).all()


def test_rows_added_later_keep_the_ids_of_the_others():
    extra = MemoryRows(
        torch.tensor([[7, 0, 0, 0]]), torch.tensor([1]), torch.tensor([7]), torch.tensor([1])
    )
    both = rows().extended(extra)
    assert both.order.tolist() == [1, 2, 5, 6, 0, 4, 3]  # the new row is user 1's last
    assert both.targets[both.place].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert both.history(1) == [7, 7]


def test_history_is_the_last_row_and_its_target():
    memory_rows = rows()
    assert memory_rows.history(3) == [*memory_rows.item_seq[4, :2].tolist(), 5]
    assert memory_rows.history(2) == [] and memory_rows.history(77) == []


def test_encode_gives_each_place_its_own_state():
    encoder = MeanEncoder().eval()
    memory_rows = rows()
    states = encoded(memory_rows, encoder)
    for place, row in enumerate(memory_rows.order.tolist()):
        alone = encoder(
            memory_rows.item_seq[row : row + 1], memory_rows.item_seq_len[row : row + 1]
        )
        assert torch.allclose(states[place], alone[0])


def test_random_places_are_spread_and_belong_to_the_key():
    keys = torch.arange(2000)
    n_rows = torch.full((2000,), 50)
    places = random_places(keys, 10, n_rows, seed=3)
    assert places.min() == 0 and places.max() == 49
    counts = torch.bincount(places.flatten(), minlength=50)
    assert counts.float().std() < 3 * (20000 / 50) ** 0.5  # of a uniform draw it is about 20
    assert torch.equal(random_places(keys[100:110], 10, n_rows[:10], seed=3), places[100:110])
    assert not torch.equal(random_places(keys, 10, n_rows, seed=4), places)
    first = torch.bincount(places[:, 0], minlength=50)  # calibration may take the first few alone
    assert first.float().std() < 3 * (2000 / 50) ** 0.5
    assert (places[:-1] == places[1:]).float().mean() < 0.05  # neighbours in key share nothing


@pytest.mark.parametrize(("n_rows", "k"), [(50, 10), (50, 37), (50, 50), (7, 10), (0, 3)])
def test_random_places_are_distinct_and_as_many_as_there_can_be(n_rows, k):
    places = random_places(torch.arange(200), k, torch.full((200,), n_rows), seed=0)
    n_found = min(k, n_rows)
    assert (places[:, n_found:] == -1).all()
    assert all(len(set(row)) == n_found for row in places[:, :n_found].tolist())
    assert n_found == 0 or (0 <= places[:, :n_found].min() and places.max() < n_rows)


@pytest.mark.parametrize("policy", ["user", "row_and_later"])
def test_there_are_as_many_random_neighbours_as_nearest_ones(policy):
    of_policy = {"policy": policy}
    near = keeper(index_kind="brute_force", **of_policy).scoring().neighbours_of_rows(3)
    drawn = keeper(index_kind=None, **of_policy).scoring().neighbours_of_rows(3)
    assert torch.equal((near >= 0).sum(1), (drawn >= 0).sum(1))


def test_random_neighbours_respect_the_policy():
    memory = keeper(index_kind=None).scoring()
    similarity, near = memory.search(torch.randn(3, D), 40, torch.tensor([1, 3, 9]))
    for user, places in zip((1, 3, 9), near, strict=True):
        found = places[places >= 0]
        wanted = (memory.rows.users != user).nonzero().flatten().tolist()
        assert sorted(found.tolist()) == wanted
    assert torch.isinf(similarity[near < 0]).all() and torch.isfinite(similarity[near >= 0]).all()


def test_random_neighbours_differ_by_user_and_by_row():
    memory = keeper(index_kind=None).scoring()
    states = torch.randn(2, D)
    near = memory.search(states, 40, torch.tensor([8, 9]))[1]
    assert not torch.equal(near[0], near[1])
    rows_of_one = memory.search(states, 40, torch.tensor([9, 9]), torch.tensor([0, 1]))[1]
    assert not torch.equal(rows_of_one[0], rows_of_one[1])


def test_similarity_percentile_is_that_of_the_pairs():
    memory = keeper().scoring()
    pairs = []
    for place in range(R):
        for other in range(R):
            if memory.rows.users[place] != memory.rows.users[other]:
                pairs.append(
                    torch.cosine_similarity(memory.states[place], memory.states[other], dim=0)
                )
    wanted = torch.stack(pairs).quantile(0.4).item()
    assert memory.similarity_percentile(40, R) == pytest.approx(wanted, abs=1e-5)


def test_similarity_percentile_is_measured_once(monkeypatch):
    memory, calls = keeper().scoring(), []
    search = memory.search
    memory.search = lambda *given: (calls.append(given), search(*given))[1]
    found = [memory.similarity_percentile(p, k) for p, k in ((40, R), (40, R), (60, R), (40, 2))]
    assert len(calls) == 3 and found[0] == found[1] < found[2] and found[3] > found[0]


@pytest.mark.parametrize("n_values", [1, 7, 2**24 + 1])
def test_a_percentile_is_numpys_for_any_number_of_values(n_values):
    values = torch.rand(n_values, generator=torch.Generator().manual_seed(0))
    for percentile in (0, 30, 99):
        wanted = np.percentile(values.numpy(), percentile)
        assert _percentile(values, percentile) == pytest.approx(wanted, abs=1e-6)


def test_random_neighbours_of_rows_are_drawn_once_and_without_comparing(monkeypatch):
    made = keeper(index_kind=None)
    table = made.scoring().neighbours_of_rows(3)
    shake(made.modules["view"])
    refreshed = made.scoring()
    assert refreshed.neighbours_of_rows(3) is table
    refreshed.of_rows.clear()
    refreshed.view = None  # nothing is compared
    monkeypatch.setattr(memory_module, "DRAW_CELLS", 3)
    assert torch.equal(refreshed.neighbours_of_rows(3), table)


def test_random_neighbours_are_compared_a_part_at_a_time(monkeypatch):
    made = keeper(index_kind=None)
    states, users = torch.randn(4, D), torch.tensor([1, 3, 8, 9])
    similarity, near = made.scoring().search(states, 4, users)
    monkeypatch.setattr(memory_module, "KEY_CELLS", 2 * 4 * D)
    memory, sizes, view = made.scoring(), [], made.scoring().view
    memory.view = lambda given: (sizes.append(given.numel()), view(given))[1]
    again = memory.search(states, 4, users)
    assert torch.allclose(again[0], similarity) and torch.equal(again[1], near)
    assert max(sizes) == 2 * 4 * D
    for b in range(4):
        for k in range(4):
            place = int(near[b, k])
            wanted = torch.cosine_similarity(view(states[b]), view(memory.states[place]), dim=0)
            assert near[b, k] < 0 or similarity[b, k].item() == pytest.approx(wanted.item())


def test_label_log_prob_holds_few_logits_at_a_time(monkeypatch):
    memory, weight = keeper().scoring(), torch.randn(N, D)
    wanted, sizes = memory.label_log_prob(weight).clone(), []
    memory.of_states.clear()
    cross_entropy = memory_module.F.cross_entropy
    monkeypatch.setattr(memory_module, "CPU_CELLS", 2 * N)
    monkeypatch.setattr(
        memory_module.F,
        "cross_entropy",
        lambda logits, *more, **options: (
            sizes.append(len(logits)) or cross_entropy(logits, *more, **options)
        ),
    )
    assert torch.allclose(memory.label_log_prob(weight), wanted) and sizes == [2, 2, 2]


def test_half_precision_never_reaches_the_memory():
    """Like states: their cosines differ less than bfloat16 tells apart."""

    def all_of(memory: Memory) -> list[torch.Tensor]:
        table, weight = memory.neighbours_of_rows(3), torch.linspace(-1, 1, N * D).view(N, D)
        query, users = memory.states[:2], torch.tensor([8, 9])
        found = memory.search(query, 3, users)
        return [memory.states, table, memory.label_log_prob(weight), *found]

    def make() -> MemoryKeeper:
        made = keeper(index_kind="brute_force")
        with torch.no_grad():
            made.modules["encoder"].embedding.weight.mul_(0.02).add_(1)
        shake(made.modules["view"])
        return made

    wanted = all_of(make().scoring())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = make()
        found = all_of(made.scoring())
        half = made.scoring().search(made.scoring().states[:2].bfloat16(), 3, torch.tensor([8, 9]))
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert half[0].dtype == torch.float32


def test_added_rows_are_the_only_ones_encoded(monkeypatch):
    """And whether the others were known makes no difference to a bit."""
    extra = MemoryRows(
        torch.tensor([[7, 2, 0, 0], [3, 0, 0, 0]]),
        torch.tensor([2, 1]),
        torch.tensor([7, 6]),
        torch.tensor([1, 5]),
    )
    known, fresh, moved = keeper(), keeper(), keeper()
    known.scoring(), moved.scoring()
    asked, encode = [], MemoryRows.encode
    monkeypatch.setattr(
        MemoryRows,
        "encode",
        lambda self, *given: (asked.append(len(self)), encode(self, *given))[1],
    )
    for made in (known, fresh, moved):
        made.extend(extra)
    shake(moved.modules["encoder"])
    states = [made.scoring().states for made in (known, fresh, moved)]
    assert asked == [2, R, 2, R, 2]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[2], states[1])
    wanted = encoded(known.rows, known.modules["encoder"].eval())
    assert torch.allclose(states[0], wanted)
    table = known.scoring().neighbours_of_rows(2)
    assert len(table) == R + 2


def test_random_neighbours_are_drawn_anew_when_rows_are_added():
    made = keeper(index_kind=None)
    made.scoring().neighbours_of_rows(3)
    made.extend(rows())
    assert len(made.scoring().neighbours_of_rows(3)) == 2 * R


def test_states_are_encoded_without_dropout_and_the_mode_is_given_back():
    made = keeper()
    encoder = made.modules["encoder"].train()
    states = made.scoring().states
    assert encoder.training
    assert torch.equal(states, encoded(made.rows, encoder.eval()))


def test_scoring_memory_follows_the_weights_however_they_move():
    made = keeper()
    first = made.scoring()
    assert made.scoring() is first
    first.label_log_prob(made.modules["encoder"].embedding.weight)
    shake(made.modules["view"])
    second = made.scoring()
    assert second is not first and second.states is first.states  # the encoder stood still
    assert second.of_states is first.of_states
    made.modules["encoder"].embedding.weight.data.mul_(-1).add_(1)  # behind autograd's back
    third = made.scoring()
    assert not torch.equal(third.states, first.states) and not third.of_states


def test_a_refresh_changes_the_neighbours():
    """Re-adding cached vectors would be a no-op: the index must hold the view of today."""
    made = keeper()
    query, user = torch.randn(1, D), torch.tensor([9])
    before = made.scoring().search(query, R, user)[1]
    for _ in range(5):
        shake(made.modules["view"])
    after = made.scoring().search(query, R, user)[1]
    wanted = torch.nn.functional.normalize(made.modules["view"](made.scoring().states), dim=1)
    wanted = wanted @ torch.nn.functional.normalize(made.modules["view"](query), dim=1)[0]
    assert after[0].tolist() == wanted.argsort(descending=True).tolist()
    assert before.tolist() != after.tolist()


@pytest.mark.parametrize("snapshot_encoder", [False, True])
def test_training_memory_stays_with_its_snapshot(snapshot_encoder):
    made = keeper(snapshot_encoder)
    snapshot = made.snapshot()
    memory = made.training(snapshot)
    table = memory.neighbours_of_rows(3).clone()
    shake(made.modules["view"])
    if snapshot_encoder:
        shake(made.modules["encoder"])
    made.scoring()
    assert made.training(snapshot) is memory
    made.forget()  # as after a resume: rebuilt from the snapshot, bit for bit
    rebuilt = made.training(snapshot)
    assert torch.equal(rebuilt.states, memory.states)
    assert torch.equal(rebuilt.neighbours_of_rows(3), table)
    snapshot.copy_(made.snapshot())
    assert made.training(snapshot) is not rebuilt


def test_the_index_of_old_weights_is_gone_before_another_is_built(monkeypatch):
    made, alive = [], []
    build = memory_keeper.build_index

    def watched(*arguments):
        alive.append(sum(one() is not None for one in made))
        index = build(*arguments)
        made.append(weakref.ref(index))
        return index

    monkeypatch.setattr(memory_keeper, "build_index", watched)
    both = keeper(index_kind="brute_force")
    both.training(both.snapshot())
    for _ in range(3):
        shake(both.modules["view"])
        states = both.scoring().states
    assert alive == [0, 1, 1, 1], "but for that of training"
    assert both.training(both.snapshot()).states is states  # of the encoder, which did not move


def test_training_and_scoring_share_a_memory_of_equal_weights():
    made = keeper()
    assert made.training(made.snapshot()) is made.scoring()


def test_a_frozen_encoder_that_is_loaded_anew_is_noticed_in_training():
    made = keeper()
    snapshot = made.snapshot()
    before = made.training(snapshot).states
    encoder = made.modules["encoder"]
    encoder.load_state_dict({"embedding.weight": torch.randn(N, D)})
    assert not torch.equal(made.training(snapshot).states, before)


def test_copies_share_the_rows_and_leave_the_memory_behind():
    made = keeper()
    made.scoring()
    twin = copy.deepcopy(made)
    assert twin._scoring is None and twin.rows is made.rows
    assert twin.modules["encoder"] is not made.modules["encoder"]
    assert torch.equal(twin.scoring().states, made.scoring().states)


def test_neighbours_of_rows_are_the_search_of_each_row():
    memory: Memory = keeper().scoring()
    for k in (4, 2, 5):  # each asked for its own
        table = memory.neighbours_of_rows(k)
        assert table is memory.neighbours_of_rows(k)
        for place in range(R):
            row, user = memory.rows.order[place : place + 1], memory.rows.users[place : place + 1]
            found = memory.search(memory.states[place : place + 1], k, user, row)[1]
            assert table[place].tolist() == found[0].tolist()


def test_label_log_prob_is_the_softmax_of_the_states():
    memory = keeper().scoring()
    weight = torch.randn(N, D)
    wanted = (memory.states @ weight[1:].T).log_softmax(1)[torch.arange(R), memory.targets - 1]
    assert torch.allclose(memory.label_log_prob(weight), wanted, atol=1e-5)


@pytest.mark.parametrize("policy", ["user", "row_and_later"])
def test_recall_is_of_the_neighbours_that_a_row_may_find(policy):
    """An index that answers 0 and 1 to all; the right answers by a loop over the other rows."""
    made = keeper(index_kind="ivf", policy=policy)
    shake(made.modules["view"])
    memory = made.scoring()
    memory.index.search = lambda queries, k, excluded=None: (
        torch.zeros(len(queries), 2),
        torch.tensor([[0, 1]]).expand(len(queries), 2),
    )
    keys = made.modules["view"](memory.states).detach().double().numpy()
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    users, hits, total = memory.rows.users.tolist(), 0, 0
    for place in range(R):
        allowed = [
            other
            for other in range(R)
            if users[other] != users[place] or (policy == "row_and_later" and other < place)
        ]
        near = sorted(allowed, key=lambda other: -(keys[place] @ keys[other]))[:2]
        hits, total = hits + len(set(near) & {0, 1}), total + len(near)
    assert made.measure_recall(2) == made.report["recall"] == pytest.approx(hits / total)


def test_report_and_recall():
    made = keeper(index_kind="ivf")
    assert made.measure_recall(3) == 1.0  # six rows are one list
    assert (
        made.report["rows"] == R and made.report["index"] == "ivf" and made.report["recall"] == 1.0
    )
    assert keeper(index_kind="brute_force").measure_recall(3) == 1.0


@pytest.mark.parametrize("index_kind", ["brute_force", "exact", "ivf", "hnsw", None])
@pytest.mark.parametrize("limit_mib", [0, 1.5 * 4 * R * D / 2**20])
def test_in_a_file_the_memory_is_the_same_to_the_bit(tmp_path, index_kind, limit_mib):
    """The second limit holds the states alone."""
    weight = torch.randn(N, D)
    extra = MemoryRows(
        torch.tensor([[7, 2, 0, 0]]), torch.tensor([2]), torch.tensor([7]), torch.tensor([1])
    )

    snapshots = []

    def all_of(made: MemoryKeeper) -> list[torch.Tensor]:
        found = []
        for change in (
            lambda: None,
            lambda: shake(made.modules["view"]),
            lambda: made.extend(extra),
        ):
            torch.manual_seed(3)
            change()
            snapshots.append(made.snapshot())  # kept: it is known by where it lies
            memory = made.training(snapshots[-1])
            places = torch.tensor([4, 0, 4])
            found += [memory.states, memory.neighbours_of_rows(3), memory.neighbours_at(places, 3)]
            found += [memory.states_at(places[:, None]), memory.label_log_prob(weight)]
            found += memory.search(memory.states[:2], 3, torch.tensor([8, 9]))
            found += [torch.tensor([memory.similarity_percentile(40, 3), made.measure_recall(3)])]
        return found

    room = Room(limit_mib, tmp_path)
    wanted = all_of(keeper(index_kind=index_kind))
    found = all_of(keeper(index_kind=index_kind, room=room))
    assert room.most_mapped_mib > 0
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


def test_states_are_written_where_they_stay(monkeypatch):
    """No second copy of them all, be it for a while."""
    made, shapes = keeper(index_kind=None), []
    empty = made.room.empty
    made.room.empty = lambda shape, *more, **options: (
        shapes.append(tuple(shape)),
        empty(shape, *more, **options),
    )[1]
    monkeypatch.setattr(torch, "cat", None)
    made.scoring().neighbours_of_rows(3)
    assert shapes == [(R, D), (R, 3)]


def test_long_memories_are_sorted_by_length_a_part_at_a_time(monkeypatch):
    memory_rows, encoder = rows(), MeanEncoder().eval()
    wanted = encoded(memory_rows, encoder)
    monkeypatch.setattr(memory_module, "SORTED_ROWS", 4)
    parts = [row_ids for row_ids, _ in memory_rows.encode(encoder, "cpu")]
    assert [sorted(memory_rows.place[part].tolist()) for part in parts] == [[0, 1, 2, 3], [4, 5]]
    assert torch.allclose(encoded(memory_rows, encoder), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("index_kind", ["brute_force", "ivf", None])
def test_beyond_the_limit_a_gpu_gets_the_rows_it_asks_for(tmp_path, index_kind):
    made, wanted = keeper(index_kind=index_kind, room=Room(0, tmp_path)), keeper().scoring()
    for module in made.modules.values():
        module.cuda()
    memory, places = made.scoring(), torch.tensor([4, 0]).cuda()
    assert memory.states.device.type == memory.neighbours_of_rows(3).device.type == "cpu"
    found = [memory.states_at(places), memory.neighbours_at(places, 3), memory.targets]
    found += [memory.label_log_prob(torch.randn(N, D).cuda()), *memory.search(found[0], 3, places)]
    assert all(tensor.device.type == "cuda" for tensor in found)
    assert torch.allclose(found[0].cpu(), wanted.states[[4, 0]], atol=1e-5)
    if index_kind is not None:
        assert torch.equal(found[1].cpu(), wanted.neighbours_at(places.cpu(), 3))
