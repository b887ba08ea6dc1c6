"""Reading a picture once for many turns gives what Llama gives for each turn by itself."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training.language import Decoder, greedy  # noqa: E402
from training.network import WIDTH, language_model  # noqa: E402


@torch.no_grad()
def test_turns_side_by_side_equal_llama() -> None:
    torch.manual_seed(0)
    decoder, llama = Decoder([1, 5, 9]).eval(), language_model().eval()
    decoder.load_state_dict(llama.state_dict())
    visual, ids = torch.randn(2, 144, WIDTH), torch.randint(3, 700, (2, 3, 10))
    found = decoder.lm_head(decoder(visual, ids))
    for b in range(2):
        for t in range(3):
            table = llama.model.embed_tokens
            row = torch.cat([table(decoder.head), visual[b], table(ids[b, t])])[None]
            assert torch.allclose(llama(inputs_embeds=row).logits[0, -10:], found[b, t], atol=1e-4)


def test_greedy_answers_do_not_depend_on_company() -> None:
    torch.manual_seed(1)
    decoder, visual = Decoder([1, 5]).eval(), torch.randn(2, 144, WIDTH)
    prompts = [[[7, 8, 9], [11]], [[12, 13], [14, 15, 16, 17]]]
    together = greedy(decoder, visual, prompts, limit=4)
    alone = [[greedy(decoder, visual[b : b + 1], [[p]], limit=4)[0][0] for p in row] for b, row in enumerate(prompts)]
    assert together == alone
