"""The card says what was trained on what, how well it does and how sure that is."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from sst2_ray.config.train import TrainConfig
from sst2_ray.modeling.export.card import base_model, card_text, meta_values
from sst2_ray.modeling.sources import ModelInfo
from tests.support.models import card_facts

INFO = ModelInfo(
    kind="sbert", source="hub", revision="c" * 40, random_weights=False, label="sbert-minilm", attention="sdpa"
)


@dataclasses.dataclass
class Built:
    info: ModelInfo = INFO


def facts(info=INFO, config=None, **changes):
    return card_facts(Built(info), config or TrainConfig(), **changes)


def test_credentials_of_a_uri_do_not_go_into_an_export():
    stated = facts()
    config = dataclasses.replace(
        stated.config, storage_path="s3://KEY:SECRET@bucket/runs", data="s3://KEY:SECRET@bucket/data"
    )
    values = json.dumps(meta_values(dataclasses.replace(stated, config=config)))
    assert "SECRET" not in values
    assert "s3://bucket/runs" in values


def test_the_accuracy_has_its_counts_and_wilson_interval():
    text = card_text(facts(num_dev_rows=872, accuracy=775 / 872))
    assert "| accuracy | 88.88 % | 775 of 872 sentences; 95 % Wilson interval 86.62 to 90.79 |" in text


def test_random_weights_are_said_plainly():
    random = dataclasses.replace(INFO, source="random", random_weights=True, label="modernbert-mini (random weights)")
    text = card_text(facts(random))
    assert "# modernbert-mini (random weights): " in text
    assert "**It started from random weights, not from pretrained ones**" in text
    assert "It started from random weights" not in card_text(facts())


def test_the_leak_rules_of_what_it_was_trained_on_stand_in_it():
    assert "- never score it on glue: rotten-tomatoes is SST-2's parent corpus" in card_text(
        facts(corpora=("rotten-tomatoes",))
    )
    assert "## Leaks" not in card_text(facts())


def test_what_an_earlier_fine_tuning_saw_is_carried_on():
    earlier = dataclasses.replace(INFO, trained_on=("rotten-tomatoes",))
    assert meta_values(facts(earlier, corpora=("glue",)))["corpora"] == ["glue", "rotten-tomatoes"]


@pytest.mark.parametrize(
    ("config", "optimistic"),
    [
        (TrainConfig(epochs=2), True),
        (TrainConfig(epochs=1, evaluations_per_epoch=3), True),
        (TrainConfig(epochs=1), False),
        (TrainConfig(epochs=2, selection_fraction=0.1), False),
    ],
)
def test_a_choice_made_on_the_same_sentences_is_called_optimistic(config, optimistic):
    assert ("so the figures are optimistic" in card_text(facts(config=config))) is optimistic


def test_the_front_matter_is_yaml_that_names_the_base():
    front = yaml.safe_load(card_text(facts()).split("---")[1])
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front["library_name"] == "sentence-transformers"


@pytest.mark.parametrize(
    ("data", "eval_split", "language"),
    [
        ("glue", "SST-2 dev", "en"),
        ("rotten-tomatoes", "hold-out of rotten-tomatoes", "en"),
        ("sst2-folder", "SST-2 dev, 200 of 872 rows", "en"),
        ("kritiken.csv", "hold-out of kritiken.csv", None),
        ("owner/name", "dev of owner/name", None),
    ],
)
def test_the_language_is_stated_where_it_is_known(data, eval_split, language):
    text = card_text(facts(config=TrainConfig(data=data), eval_split=eval_split))
    assert yaml.safe_load(text.split("---")[1]).get("language") == language


def test_a_hub_id_is_its_own_base_and_random_numbers_have_none():
    assert base_model(facts(config=TrainConfig(model="owner/name"))) == "owner/name"
    assert base_model(facts(dataclasses.replace(INFO, source="random"))) is None


@pytest.mark.parametrize("source", ["hub", "packaged", "folder", "random"])
def test_it_says_where_the_weights_came_from(source):
    assert "- weights: " in card_text(facts(dataclasses.replace(INFO, source=source)))


def test_the_metadata_is_plain_json_with_the_whole_config():
    values = json.loads(json.dumps(meta_values(facts())))
    assert values["config"] == TrainConfig().to_dict()
    assert values["config_hash"] == TrainConfig().config_hash
    assert values["metrics"]["num_rows"] == 872
