"""FTRagRec: the contract. What docs/ftragrec.md claims is tested in the folder ftragrec."""

from __future__ import annotations

import torch
from contracts import ModelContract
from recbole.trainer import Trainer


class TestFTRagRec(ModelContract):
    model = "FTRagRec"
    # the frozen encoder's own loss is a constant of the sum: let the other one dominate
    settings = {"enhanced_rec_weight": 10.0}
    # the last layer of a block starts at zero, so the first one's gradient is zero at first
    zero_gradient = ("*.key.bias", "retrieval.retriever.blocks.*.dense_1.*")

    def test_a_trainer_without_callbacks_scores_with_todays_memory_and_says_what_it_lacks(
        self, net, config, loaders, test_batch
    ):
        net.keeper.scoring()
        Trainer(config, net).fit(loaders[0], saved=False, show_progress=False)
        assert net.result_extra()["retrieval"]["is_calibrated"] is False
        fresh = self.make_model(config, loaders[0].dataset, seed=77)
        fresh.load_state_dict(net.state_dict())
        found = net.eval().full_sort_predict(test_batch)
        assert torch.equal(found, fresh.eval().full_sort_predict(test_batch))


class TestFTRagRecUnfrozen(TestFTRagRec):
    settings = {"freeze": "none"}


class TestFTRagRecProbability(TestFTRagRec):
    settings = {"mix": "probability", "enhanced_rec_weight": 10.0}


class TestFTRagRecGate(TestFTRagRec):
    settings = {"mix": "gate", "enhanced_rec_weight": 10.0}


class TestFTRagRecVector(TestFTRagRec):
    # an untrained encoder has next to nothing to gain from a vector mix but through itself
    settings = {"mix": "vector", "top_k": 5, "freeze": "none", "kl_small_weight": 1.0}
