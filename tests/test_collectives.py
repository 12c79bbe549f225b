"""What a compiled step sends between devices is what launch/README.md counts on paper."""

import jax
import pytest

from benchmarks import collectives


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [1, 8])
def test_a_step_sends_gradients_once_and_split_parameters_at_most_twice(fsdp):
    program, abstract = collectives.compiled(fsdp, 1, 32)
    sent, leaves = collectives.counted(program.as_text()), jax.tree.leaves(abstract.params)
    whole = sum(4 * leaf.size for leaf in leaves)
    split = sum(4 * leaf.size for leaf in leaves if not leaf.sharding.is_fully_replicated)
    summed = sum(sent.get(kind, (0, 0))[1] for kind in ("all-reduce", "reduce-scatter"))
    gathered = sent.get("all-gather", (0, 0))[1]
    if fsdp == 1:
        assert split == gathered == 0 and whole <= summed < 1.001 * whole  # and a few figures
    else:
        assert split > 0.9 * whole and 0.9 * whole < summed < 1.05 * whole
        assert split < gathered <= 2 * split  # some are kept from the forward to the backward pass


def test_messages_are_counted_with_all_their_arrays():
    text = """
      %all-gather.1 = f32[3,3,64,128]{3,2,1,0} all-gather(%p), channel_id=1
      ROOT %all-reduce-start = (f32[64]{0}, bf16[2,2]{1,0}) all-reduce-start(%a, %b), to_apply=%sum
      %fusion = f32[8]{0} fusion(%all-gather.1), kind=kLoop
    """
    assert collectives.counted(text) == {"all-gather": (1, 4 * 3 * 3 * 64 * 128), "all-reduce": (1, 4 * 64 + 2 * 4)}
