import tomllib
from importlib import resources

import pytest

from lastlayer.cli.settings import Settings
from lastlayer.data import SOURCES, class_tasks
from lastlayer.experiments import Recipe, catalog, default_recipe, plan, recipe_names
from lastlayer.experiments.recipe import resolve_recipe
from lastlayer.heads import HEADS
from lastlayer.incremental.methods import ADDITIONS, METHODS
from lastlayer.longtail import long_tail_counts
from lastlayer.models import BACKBONES
from lastlayer.regularizers import REGULARIZERS
from lastlayer.report import ComparisonRow
from lastlayer.report.pages import published_table
from lastlayer.training.build import backbone_name, build_classifier
from lastlayer.training.schemes import SCHEMES
from lastlayer.training.sections import HeadConfig, RegularizerConfig
from lastlayer.training.stage_sections import ClassifierStageConfig

SHAPES = {
    "digits": (1, 8, 8),
    **dict.fromkeys(("mnist", "fashion-mnist", "kmnist"), (1, 28, 28)),
    **dict.fromkeys(("cifar10", "cifar100"), (3, 32, 32)),
    **dict.fromkeys(("banking77", "sst-2"), (5000,)),
    **dict.fromkeys(("folder", "image-lists"), (3, 224, 224)),
}


def _without_variant(config):
    """What runs of different heads, regularizers and schemes have in common."""
    stage = ClassifierStageConfig().model_dump(include={"sampler", "train", "representation_head"})
    return config.updated(
        {"training": {"sampler": "instance"}, "classifier_stage": stage}
    ).model_copy(update={"head": HeadConfig(), "regularizer": RegularizerConfig()})


def _require_torchvision():
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision is not usable here: {error}")


@pytest.fixture(params=recipe_names())
def recipe(request):
    return Recipe.load(request.param)


def test_every_recipe_plans_its_runs_on_equal_terms(recipe, tmp_path):
    jobs = plan(recipe, recipe.variants, range(recipe.seeds), tmp_path)
    assert len(jobs) == recipe.seeds * len(recipe.variants)
    assert len({job.path for job in jobs}) == len(jobs)
    for seed in range(recipe.seeds):
        configs = [job.config for job in jobs if job.config.seed == seed]
        assert [job.label for job in jobs if job.config.seed == seed] == list(recipe.variants)
        assert len({config.data.model_dump_json() for config in configs}) == 1
        if not recipe.variant_config and recipe.kind == "heads":
            equal = {_without_variant(config).model_dump_json() for config in configs}
            assert len(equal) == 1


def test_every_recipe_builds_every_head(recipe):
    for head in recipe.variants:
        config = recipe.run_config(head, {})
        if config.model.name in ("resnet10", "resnet50", "resnet152"):
            _require_torchvision()
        assert config.data.name in SOURCES.names()
        shape = SHAPES[config.data.name]
        assert backbone_name(config, shape) in BACKBONES.names()
        for stage in (config, config.first_stage()):
            classifier = build_classifier(stage, shape, 10, class_counts=range(10, 0, -1))
            assert classifier.head.num_classes == 10


def test_every_published_number_belongs_to_a_head_we_have(recipe):
    for variant in {*recipe.published, *recipe.variant_config}:
        head, *added = variant.split("+")
        if recipe.kind == "incremental":
            assert head in HEADS.names() or head in METHODS
            assert set(added) <= set(ADDITIONS)
            continue
        assert head in HEADS.names() or head in SCHEMES
        assert len(added) <= 1
        assert set(added) <= set(REGULARIZERS.names())
    errors = [error for by_source in recipe.published.values() for error in by_source.values()]
    assert all(0 < error < 100 for error in errors)
    assert bool(recipe.published) == bool(recipe.published_note)
    assert recipe.title
    assert recipe.source


TASKS = {
    "digits-5x2": (10, [2] * 5),
    "mnist-5x2": (10, [2] * 5),
    "banking77-37-4x10": (77, [37, 10, 10, 10, 10]),
    "cifar100-50-5x10": (100, [50, 10, 10, 10, 10, 10]),
    "cifar100-50-5x10-small": (100, [50, 10, 10, 10, 10, 10]),
    "cifar100-50-10x5": (100, [50] + [5] * 10),
}


def test_recipes_of_tasks_divide_the_classes_as_their_names_say():
    kinds = {name: Recipe.load(name).kind for name in recipe_names()}
    assert {name for name, kind in kinds.items() if kind == "incremental"} == set(TASKS)
    for name, (num_classes, sizes) in TASKS.items():
        tasks = Recipe.load(name).run_config("softmax", {}).tasks
        planned = class_tasks(num_classes, base=tasks.base, steps=tasks.later)
        assert list(planned.sizes) == sizes


def test_methods_of_a_recipe_differ_in_nothing_but_the_method():
    recipe = Recipe.load("digits-5x2")
    plain = recipe.run_config("softmax", {})
    for method, tables in {
        "balanced-softmax": {"head"},
        "softmax+distillation": {"distillation"},
        "softmax+distillation+alignment": {"distillation", "correction"},
        "icarl": {"distillation", "predictor"},
        "joint": {"memory", "tasks"},
        "weighted": {"head"},
        "softmax+class-sampling": {"training"},
    }.items():
        other = recipe.run_config(method, {})
        names = type(plain).model_fields
        differ = {name for name in names if getattr(plain, name) != getattr(other, name)}
        assert differ == tables, method


def test_a_memory_that_is_given_stays_out_of_the_way_of_joint_training():
    config = Recipe.load("digits-5x2").run_config("joint", {"memory": {"per_class": 5}})
    assert config.memory.everything
    assert config.memory.budget == {"per_class": None, "total": None}


LONG_TAILS = {
    ("digits-lt", 100): (10, 343), ("digits-lt", 50): (10, 387),
    ("cifar10-lt", 200): (10, 11203), ("cifar10-lt", 100): (10, 12406),
    ("cifar10-lt", 10): (10, 20431),
    ("cifar100-lt", 200): (100, 9502), ("cifar100-lt", 100): (100, 10847),
    ("cifar100-lt", 10): (100, 19573),
}  # fmt: skip


@pytest.mark.parametrize(("name", "imbalance"), LONG_TAILS)
def test_long_tails_have_the_published_sizes(name, imbalance):
    num_classes, size = LONG_TAILS[name, imbalance]
    changes = Settings(long_tail=imbalance).changes()
    tail = Recipe.load(name).run_config("softmax", changes).data.long_tail
    there = [tail.n_max] * num_classes
    counts = long_tail_counts(there, tail.imbalance, n_max=tail.n_max, profile=tail.profile)
    assert int(counts.sum()) == size


def test_recipes_are_listed_by_their_titles():
    assert catalog()["recipes"] == {name: Recipe.load(name).title for name in recipe_names()}
    files = resources.files("lastlayer.experiments") / "recipes"
    assert {f"{name}.toml" for name in recipe_names()} == {entry.name for entry in files.iterdir()}


@pytest.mark.parametrize(
    ("data", "model", "recipe"),
    [
        ("digits", None, "digits"),
        ("digits", "mlp", "digits"),
        ("mnist", None, "mnist-1k"),
        ("mnist", "tutorial-cnn", "mnist-1k"),
        ("fashion-mnist", None, "mnist-1k"),
        ("mnist", "lenet", None),
        ("cifar10", None, None),
        ("hub:mnist", None, None),
    ],
)
def test_the_default_recipe_fits_data_and_backbone(data, model, recipe):
    assert default_recipe(data, model) == recipe


def test_without_a_fitting_recipe_there_are_plain_defaults():
    recipe, name = resolve_recipe(None, {"data": {"name": "cifar10"}})
    assert name == "the defaults"
    assert recipe.config == {}
    assert recipe.variants[0] == "softmax"
    assert resolve_recipe(None, {})[1] == "recipe digits"
    assert resolve_recipe("mnist-1k", {})[1] == "recipe mnist-1k"


def test_settings_are_laid_over_in_order_and_the_head_is_the_one_named():
    recipe = Recipe(
        title="t",
        variants=("softmax", "dropmax"),
        config={"optimizer": {"lr": 0.1, "weight_decay": 0.2}, "training": {"steps": 5}},
        variant_config={"dropmax": {"optimizer": {"lr": 0.3}}},
    )
    changes = {"training": {"steps": 7}, "head": {"name": "sparsemax"}}
    softmax, dropmax = (recipe.run_config(head, changes) for head in recipe.variants)
    assert (softmax.optimizer.lr, dropmax.optimizer.lr) == (0.1, 0.3)
    assert (softmax.optimizer.weight_decay, dropmax.optimizer.weight_decay) == (0.2, 0.2)
    assert softmax.training.steps == dropmax.training.steps == 7
    assert (softmax.head.name, dropmax.head.name) == ("softmax", "dropmax")


def test_unknown_recipes_are_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown recipe 'digts'\. Did you mean 'digits'\?.*mnist-1k"
    ):
        Recipe.load("digts")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title = ", "not TOML"),
        (b"\xff", "not TOML"),
        (b'title = "t"', "variants: Field required"),
        (b'title = "t"\nheads = ["softmax"]\nspeed = 3', "speed: Extra inputs"),
        (b'title = "t"\nheads = ["softmax"]\nseeds = 0', "seeds"),
    ],
)
def test_a_damaged_recipe_file_is_named(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Recipe.load(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"no recipe file {tmp_path}"):
        Recipe.load(str(tmp_path / "mine.toml"))


def rows():
    return [
        ComparisonRow(head, [0, 1], [0.06, 0.08], *[[0.1, 0.1]] * 5)
        for head in ("softmax", "dropmax:temperature=0.2", "entmax15")
    ]


def test_published_numbers_stand_beside_ours():
    published = {"softmax": {"A": 7.09, "B": 7.17}, "dropmax": {"A": 5.32}}
    table = published_table(rows(), published, "mind the gap")
    assert table.columns == ("Head", "Ours", "A", "B")
    assert table.rows == (
        ("softmax", "7.00", "7.09", "7.17"),
        ("dropmax:temperature=0.2", "7.00", "5.32", "–"),
        ("entmax15", "7.00", "–", "–"),
    )
    assert table.note.endswith("mind the gap.")


def test_without_published_numbers_there_is_no_table():
    assert published_table(rows(), {}) is None


def test_recipes_are_plain_toml():
    folder = resources.files("lastlayer.experiments") / "recipes"
    for entry in folder.iterdir():
        assert tomllib.loads(entry.read_text("utf-8"))["title"]
