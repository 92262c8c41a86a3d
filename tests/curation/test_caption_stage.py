"""Captions of a run's crops: what is done with a model's answers, and a tiny real model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from curated_set import curated_set
from hbr.curation.manifest import FOLDERS, Manifest
from hbr.curation.record import CurationError
from hbr.curation.runs.captions import write_captions
from hbr.curation.runs.run_folder import RunFolder
from hbr.models.captioner import load_captioner
from hbr.people.captions import LONGEST, read_captions, tags_of_answer
from hbr.training.conditions import ConditionMaker
from hbr.training.config import ConditionsConfig, PhotoSourceConfig
from hbr.training.photos import open_photos
from hbr.weights import WeightsError


@pytest.mark.parametrize(
    ("answer", "text", "why"),
    [
        ("Sneakers, a man, red coat.", "a man, red coat, Sneakers", ""),
        ("a man; a man; a man; hat", "a man, hat", ""),
        ("woman\nblue jeans", "woman blue jeans", ""),
        ("", "", "an empty answer"),
        (" ,,. ", "", "an empty answer"),
        ("一个穿红色外套的女人, woman", "", "not in English"),
        ("The photo shows a woman who walks down a street in autumn", "", "a sentence, not tags"),
        ("sky, tree, road", "", "nothing about a person"),
    ],
)
def test_only_tags_become_a_caption(answer: str, text: str, why: str) -> None:
    assert tags_of_answer(answer) == (text, why)


def test_a_long_answer_is_cut_between_tags() -> None:
    text, why = tags_of_answer(", ".join(["a man", *(f"red shirt {i}" for i in range(99))]))
    assert (why, len(text) <= LONGEST) == ("", True)
    assert text.startswith("a man, red shirt 0, ")
    assert text.rpartition(", ")[2].startswith("red shirt ")


@pytest.fixture(scope="module")
def made(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated_set(shared, tmp_path_factory.mktemp("captions") / "run", edge=64)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def texts_in_training(run: Path, captions: Path) -> dict[str, str]:
    """The name of each crop's file → the text that a training reads for it."""
    maker, texts = ConditionMaker(ConditionsConfig(captions=captions)), {}
    for split in ("train", "val"):
        photos = open_photos(PhotoSourceConfig(manifest=run, split=split))
        texts |= {
            Path(name).name: maker.text(name) for name in map(photos.name, range(len(photos)))
        }
    return texts


def test_two_commands_do_not_write_one_file_of_captions(run: Path) -> None:
    said = []

    def describe(_: np.ndarray) -> str:
        if not said:
            with pytest.raises(CurationError, match="another process writes captions") as caught:
                write_captions(RunFolder(run), lambda _: "a woman", "other")
            said.append(str(caught.value))
        return "a man"

    path, totals = write_captions(RunFolder(run), describe, "toy")
    assert len(said) == 1
    assert {json.loads(line)["text"] for line in path.read_text().splitlines()} == {"a man"}
    assert totals.written == totals.kept > 1
    assert not list(run.glob(".captions*"))


def test_a_stopped_captioning_goes_on_and_training_reads_it(run: Path) -> None:
    names = [record.id + ".png" for record in Manifest(run).kept()]
    asked = []

    def describe(crop: np.ndarray) -> str:
        assert crop.shape == (64, 64, 3)
        asked.append(len(asked))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return ["red coat, a woman", "", "a man, boots"][len(asked) % 3]

    with pytest.raises(KeyboardInterrupt):
        write_captions(RunFolder(run), describe, "toy")
    with (run / "captions.jsonl").open("a") as file:
        file.write('{"photo": "torn by a k')
    path, totals = write_captions(RunFolder(run), describe, "toy")
    assert len(asked) == len(names) + 1  # the one that was interrupted is asked again
    assert (totals.kept, totals.earlier) == (len(names), 3)
    assert totals.written + totals.refused == len(names) - 3
    found = read_captions(path)
    assert [*found] == names
    assert {*found.values()} == {"a woman, red coat", "", "a man, boots"}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["why"] for row in rows if not row["text"]} == {"an empty answer"}
    assert {row["model"] for row in rows} == {"toy"}
    for kind in FOLDERS.values():  # crops in files, then in tars, then in tables
        assert texts_in_training(run, path) == found
        shutil.rmtree(run / kind)


def test_a_crop_that_is_gone_is_said(run: Path) -> None:
    shutil.rmtree(run / "crops")
    shutil.rmtree(run / "work")
    with pytest.raises(CurationError, match=r"the crop of .* is not in .* any more"):
        write_captions(RunFolder(run), lambda _: "a man, hat", "toy")


def test_crops_without_files_are_found_once_for_all_captions(run: Path) -> None:
    shutil.rmtree(run / "crops")
    first = next(Manifest(run).kept())

    def describe(_: np.ndarray) -> str:
        for parts in run.glob("work/*/parts"):
            shutil.rmtree(parts)  # what has been read of them is enough
        return "a man, hat"

    path, totals = write_captions(RunFolder(run), describe, "toy")
    assert (totals.written, totals.kept) == (len([*Manifest(run).kept()]),) * 2
    assert next(iter(read_captions(path))) == f"{first.id}.png"


def test_captions_of_jpegs_are_named_as_their_files(shared: Path, tmp_path: Path) -> None:
    run = curated_set(shared, tmp_path / "jpegs", edge=64, form="jpeg")
    shutil.rmtree(run / "work")  # what is left is the data set alone
    path, _ = write_captions(RunFolder(run), lambda _: "a man, hat", "toy")
    names = [record.id + ".jpg" for record in Manifest(run).kept()]
    for kind in FOLDERS.values():
        assert texts_in_training(run, path) == dict.fromkeys(names, "a man, hat")
        shutil.rmtree(run / kind)


def test_captions_of_two_models_are_not_mixed(run: Path) -> None:
    names = [record.id + ".png" for record in Manifest(run).kept()]
    path = run / "captions.jsonl"
    by_hand = {"photo": names[0], "text": "a woman"}
    path.write_text(json.dumps(by_hand) + "\n")
    _, totals = write_captions(RunFolder(run), lambda _: "a man, hat", "one")
    assert (totals.earlier, totals.written) == (1, len(names) - 1)
    before = path.read_text()
    with pytest.raises(CurationError, match="jsonl is by one; remove it, or take --model one"):
        write_captions(RunFolder(run), lambda _: "a man, hat", "two")
    assert path.read_text() == before
    assert write_captions(RunFolder(run), lambda _: "", "one")[1].earlier == len(names)


WORDS = [
    "woman",
    "man",
    "coat",
    "shoes",
    "bag",
    "glasses",
    "red",
    "a",
    ",",
    ".",
    "User",
    "Assistant",
    ":",
]
CHAT = (
    "{% for m in messages %}User : {% for c in m.content %}{% if c.type == 'image' %}<image> "
    "{% else %}{{ c.text }} {% endif %}{% endfor %}{% endfor %}Assistant :"
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Idefics3, as SmolVLM is, of random weights and a few words."""
    import tokenizers
    import torch
    import transformers

    special = ["<unk>", "<pad>", "<s>", "</s>", "<image>", "<fake_token_around_image>"]
    special += ["<global-img>", "<end_of_utterance>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[4:],
    )
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 32}, max_image_size={"longest_edge": 32}, do_image_splitting=False
    )
    folder = tmp_path_factory.mktemp("vlm")
    transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=CHAT
    ).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = transformers.Idefics3Config(
        image_token_id=vocabulary["<image>"],
        scale_factor=2,
        vision_config={**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        text_config={
            "model_type": "llama",
            **small,
            "vocab_size": len(vocabulary),
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    )
    torch.manual_seed(0)
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_vision_language_model_answers_the_same_every_time(toy: Path) -> None:
    describe = load_captioner(toy)
    photo = np.random.default_rng(0).integers(0, 256, (90, 40, 3), np.uint8)
    answer = describe(photo)
    assert {*answer.split()} <= {*WORDS, "<unk>"}
    assert describe(photo) == answer
    assert load_captioner(toy)(photo) == answer


def test_the_command_writes_a_line_for_each_crop(toy: Path, run: Path, call_hbr) -> None:
    told = call_hbr("curate", "captions", run, "--model", toy)
    path = run / "captions.jsonl"
    assert told.stdout.strip() == str(path)
    kept = [record.id + ".png" for record in Manifest(run).kept()]
    assert [*read_captions(path)] == kept
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["model"] for row in rows} == {str(toy.resolve())}
    again = call_hbr("curate", "captions", run, "--model", toy)
    assert f"{len(kept)} were there" in again.stderr
    assert len(path.read_text().splitlines()) == len(kept)


def test_a_folder_that_is_no_such_model_is_one_line(run: Path, call_hbr) -> None:
    with pytest.raises(WeightsError, match="is not a vision-language model of transformers"):
        load_captioner(run)
    told = call_hbr("curate", "captions", run)
    assert told.returncode == 4
    assert "hbr fetch smolvlm-256m" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
