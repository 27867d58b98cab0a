"""Directions: recovered where planted, equal to a public library's, the same from every file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from safetensors.torch import save_file
from torch import Tensor

import tiny
from tiltmeter.activations.capture import Activations, capture, prompts_only
from tiltmeter.activations.direction import Direction
from tiltmeter.activations.hook_points import chosen_blocks
from tiltmeter.activations.steering import shift, steered
from tiltmeter.errors import InputError
from tiltmeter.tokens import Encoded

PROMPTS = [
    "how do i make tea",
    "make soup",
    "how do i make good bread then",
    "bake",
    "two three",
    "tea",
    "i wait then stir",
]
BLOCKS = ["model.layers.0", "model.layers.1", "model.layers.10"]


def direction() -> Direction:
    generator = torch.Generator().manual_seed(0)
    vectors = {block: torch.randn(16, generator=generator) for block in BLOCKS}
    return Direction(vectors, "output", "prompt", {"base": "some/base", "architecture": "llama"})


def test_a_planted_shift_is_recovered() -> None:
    model = tiny.model("llama")
    texts, blocks = prompts_only(model, PROMPTS), chosen_blocks(model)
    planted = torch.randn(16, generator=torch.Generator().manual_seed(3))
    base = capture(model, texts, blocks)
    with steered(model, {blocks[1]: shift(planted, 1.0)}):
        shifted = capture(model, texts, blocks[1:])
    found = Direction.between(Activations({blocks[1]: base.states[blocks[1]]}, base.rows), shifted)
    torch.testing.assert_close(found[blocks[1]], planted)
    assert found.norm(blocks[1]) == pytest.approx(float(planted.double().norm()))


def test_equals_the_public_steering_vectors_library() -> None:
    library = pytest.importorskip("steering_vectors")
    model = tiny.model("llama")
    pairs = list(zip(PROMPTS[:3], PROMPTS[3:6], strict=True))
    theirs = library.train_steering_vector(model.module, model.tokenizer, pairs, show_progress=False)

    def states(texts: list[str]) -> Activations:
        ids = [list(model.tokenizer(text)["input_ids"]) for text in texts]
        return capture(model, [Encoded(each, [False] * len(each)) for each in ids], chosen_blocks(model), batch_size=3)

    ours = Direction.between(states([negative for _, negative in pairs]), states([positive for positive, _ in pairs]))
    for index, block in enumerate(chosen_blocks(model)):
        found = theirs.layer_activations[index].double()
        assert torch.nn.functional.cosine_similarity(found, ours[block].double(), dim=0) > 0.99999
        torch.testing.assert_close(found, ours[block].double(), rtol=1e-5, atol=1e-5)


def test_from_two_models_and_subtracted_from_one() -> None:
    base, tuned = tiny.model("llama"), tiny.model("llama", seed=1)
    last = chosen_blocks(base)[-1]
    found = Direction.from_models(base, tuned, PROMPTS, [last])
    texts = prompts_only(base, PROMPTS)
    between = Direction.between(capture(base, texts, [last]), capture(tuned, texts, [last]))
    assert torch.equal(found[last], between[last])
    with found.subtracted(tuned):
        moved = capture(tuned, texts, [last]).per_prompt(last).mean(0)
    torch.testing.assert_close(moved, capture(base, texts, [last]).per_prompt(last).mean(0), rtol=0, atol=2e-6)


def test_a_model_that_did_not_move_has_no_direction() -> None:
    model = tiny.model("llama")
    found = capture(model, prompts_only(model, PROMPTS), chosen_blocks(model))
    with pytest.raises(InputError, match=r"layers\.0: base and tuned have the same mean activation"):
        Direction.between(found, found)


def test_other_texts_or_blocks_are_refused() -> None:
    model = tiny.model("llama")
    texts, blocks = prompts_only(model, PROMPTS), chosen_blocks(model)
    whole = capture(model, texts, blocks)
    with pytest.raises(InputError, match="base read 7 texts, tuned 6"):
        Direction.between(whole, capture(model, texts[:6], blocks))
    with pytest.raises(InputError, match="base has blocks"):
        Direction.between(whole, capture(model, texts, blocks[:1]))
    with pytest.raises(InputError, match="no block 'nowhere'"):
        direction()["nowhere"]


def equal(one: Direction, other: Direction, blocks: list[str]) -> bool:
    same = all(torch.equal(one[block], other[block]) for block in blocks)
    return same and (one.place, one.tokens, dict(one.about)) == (other.place, other.tokens, dict(other.about))


def test_read_back_from_safetensors(tmp_path: Path) -> None:
    direction().save(tmp_path / "v.safetensors")
    found = Direction.load(tmp_path / "v.safetensors")
    assert equal(found, direction(), BLOCKS)
    assert list(found.vectors) == BLOCKS


def test_read_back_from_a_control_vector_without_block_0(tmp_path: Path) -> None:
    direction().save(tmp_path / "v.gguf")
    found = Direction.load(tmp_path / "v.gguf")
    assert list(found.vectors) == BLOCKS[1:]
    assert equal(found, direction(), BLOCKS[1:])


def test_a_control_vector_is_what_llama_cpp_reads(tmp_path: Path) -> None:
    direction().save(tmp_path / "v.gguf")
    reader = GGUFReader(tmp_path / "v.gguf")
    fields = {name: reader.get_field(name).contents() for name in reader.fields if not name.startswith("GGUF.")}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 11
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert list(tensors) == ["direction.1", "direction.10"]
    assert tensors["direction.1"].dtype == np.float32
    np.testing.assert_array_equal(tensors["direction.1"], direction()[BLOCKS[1]].numpy())


def test_the_same_direction_makes_the_same_bytes(tmp_path: Path) -> None:
    for kind in ("safetensors", "gguf"):
        files = [tmp_path / f"{number}.{kind}" for number in range(4)]
        for path in files:
            direction().save(path)
        assert len({path.read_bytes() for path in files}) == 1


def foreign(path: Path, index: int) -> Tensor:
    writer, vector = GGUFWriter(path, "controlvector"), torch.randn(16)
    writer.add_tensor(f"direction.{index}", vector.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vector


def test_a_control_vector_of_another_tool_needs_the_names_of_blocks(tmp_path: Path) -> None:
    vector = foreign(tmp_path / "v.gguf", 2)
    found = Direction.load(tmp_path / "v.gguf", BLOCKS)
    assert torch.equal(found[BLOCKS[2]], vector)
    with pytest.raises(InputError, match="does not say which blocks"):
        Direction.load(tmp_path / "v.gguf")
    foreign(tmp_path / "far.gguf", 3)
    with pytest.raises(InputError, match=r"has direction\.3, the model has blocks 0 to 2"):
        Direction.load(tmp_path / "far.gguf", BLOCKS)


def test_directions_of_other_places_are_no_control_vectors(tmp_path: Path) -> None:
    inner = Direction(direction().vectors, "mlp")
    with pytest.raises(InputError, match="acts on block outputs, this direction on the mlp"):
        inner.save(tmp_path / "v.gguf")
    with pytest.raises(InputError, match="needs a block after block 0"):
        Direction({BLOCKS[0]: torch.ones(16)}).save(tmp_path / "v.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("vectors", "change", "message"),
    [
        ({"a.0": torch.full((4,), torch.nan)}, {}, "a.0: expected a vector of finite numbers"),
        ({"a.0": torch.ones(4), "a.1": torch.ones(5)}, {}, "expected vectors of one width"),
        ({"a.0": torch.ones(2, 2)}, {}, "expected a vector"),
        ({"a.0": torch.ones(4)}, {"place": "everywhere"}, "expected a place of output"),
        ({"a.0": torch.ones(4)}, {"format": "something"}, "of format 'tiltmeter direction 1'"),
        ({"a.0": torch.ones(4)}, {"about": {"base": 3}}, "metadata are not readable"),
    ],
)
def test_files_that_are_no_directions_are_refused(
    tmp_path: Path, vectors: dict[str, Tensor], change: dict[str, object], message: str
) -> None:
    path = tmp_path / "v.safetensors"
    described = {"format": "tiltmeter direction 1", "place": "output", "tokens": "last", **change}
    save_file(vectors, path, {"tiltmeter.direction": json.dumps(described)})
    with pytest.raises(InputError, match=message):
        Direction.load(path)


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    for name in ("v.safetensors", "v.gguf"):
        with pytest.raises(InputError, match="not found"):
            Direction.load(tmp_path / name)
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(InputError, match="cannot be read as a direction"):
            Direction.load(tmp_path / name)
