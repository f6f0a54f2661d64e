"""What repositories look like: names of environments, production, layouts and templates."""

import argocd_documents as argo
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repositories import Commit, git, imported, stream_of

import gitops_automation as module
from gitops_automation import GitOpsError, Stages, load_gitops_repository

TEMPLATE = "apps/{application}/overlays/{environment}"
WORDS = list(module.ENVIRONMENT_WORDS)
EARLIER = [word for word in WORDS if word not in module.PRODUCTION_WORDS]


def commit(day, files, **more):
    texts = {path: tag and f"image:\n  tag: {tag}\n" for path, tag in files.items()}
    return Commit(argo.seconds(f"2026-01-{day:02} 10:00"), texts, f"day {day}\n", **more)


@pytest.fixture
def config(tmp_path):
    """A function that makes a repository of commits; its folder."""
    return lambda *commits: imported(tmp_path / "config", input=b"".join(stream_of(commits)))


def grid(layout, environments=("dev", "prod"), names=("cart", "shop")):
    """The files of applications in environments."""
    return [
        layout.format(application=name, environment=environment)
        for name in names
        for environment in environments
    ]


def found(files):
    """The template that is found for files, "" for none."""
    return module.best_layout(files, Stages.of(None))[1]


def refused(*arguments):
    with pytest.raises(GitOpsError) as caught:
        load_gitops_repository(*arguments)
    return str(caught.value)


# ---- Names of environments ----------------------------------------------------------------------


NAMES = """staging-us=staging prod-eu=production nerc-ocp-prod=production 03-PRD=production
    live1=production prod-test=test pre-prod=preprod non-prod=non-prod reproduction=reproduction
    blue=blue ="""


@pytest.mark.parametrize("told", NAMES.split())
def test_a_name_tells_its_stage(told):
    name, _, stage = told.partition("=")
    assert module.usual_stage(name) == Stages.of(None).stage_of(name) == stage


@given(st.lists(st.sampled_from([*WORDS, "eu", "shop"]), min_size=1), st.sampled_from("-_./"))
def test_an_environment_with_an_earlier_word_is_never_production(words, mark):
    stage = module.usual_stage(mark.join(words))
    if any(word in EARLIER for word in words):
        assert stage != "production"
    elif any(word in module.PRODUCTION_WORDS for word in words):
        assert stage == "production"


def test_patterns_match_any_name_of_an_environment_and_the_first_one_wins():
    stages = Stages.of("dev=*-dev,production=prod-eu,rest=PROD-*,shops=*/shop-*,staging")
    assert stages.stage_of("prod-eu") == "production"
    assert stages.stage_of("prod-us") == "rest"
    assert stages.stage_of("", "shop-dev", "argocd/shop-dev") == "dev"
    assert stages.stage_of("blue", "argocd/shop-blue", "team-a") == "shops"
    assert stages.stage_of("staging-us") == stages.stage_of("staging") == "staging"
    assert stages.stage_of("blue") == ""


def test_a_word_for_production_takes_in_every_other_one():
    stages = Stages.of(["dev", "prod"])
    stages.check([("prod-eu",), ("prod-us",)])  # a usual stage may be empty
    assert [stages.stage_of(name) for name in ("production", "live", "prod-eu")] == ["prod"] * 3


def test_a_pattern_that_takes_in_nothing_is_refused_with_the_nearest():
    there = [("dev", "shop/dev"), ("production", "shop/production")]
    told = {"dev,prodution": "there are production", "dev,production=live-*": "'live-*'"}
    for environments, said in {**told, "dev=,live": "''", "qa,uat": "'qa'", "dev,": "''"}.items():
        with pytest.raises(GitOpsError) as caught:
            Stages.of(environments).check(there)
        assert said in str(caught.value)


@given(st.sets(st.sampled_from(["dev", "qa", "staging", "blue", "production"])))
def test_production_is_last_in_the_usual_order(names):
    order = Stages.of(None).order({*names, module.UNCLASSIFIED})
    assert (order[0], order[-1]) == (module.UNCLASSIFIED, "production")
    assert set(order) == {*names, module.UNCLASSIFIED, "production"}
    assert Stages.of("b=b*,a=a*").order(names) == ("b", "a")


# ---- Layouts that are found ---------------------------------------------------------------------

LAYOUTS = [  # what is found, and what the files have behind it
    (TEMPLATE, "/kustomization.yaml"),
    ("{application}/overlays/{environment}", "/base/a.yaml"),
    ("environments/{environment}/{application}", "/b.yaml"),
    ("clusters/{environment}/apps/{application}", "/release.yaml"),
    ("env/{environment}/{application}.yaml", ""),
    ("image-tags/{environment}/{application}", ""),
    ("apps/{application}/{environment}", "/deployment.yaml"),
    ("charts/{application}/values-{environment}.yaml", ""),
    ("config/{application}/{environment}.values.yaml", ""),
    ("deploy/{application}/{environment}.env", ""),
    ("envs/{environment}", "/version.yml"),
]


@pytest.mark.parametrize(("template", "rest"), LAYOUTS)
def test_a_usual_layout_is_found(template, rest):
    others = ["README.md", "base/a.yaml", "docs/prod/a.md"]
    assert found([*grid(template + rest), *others]) == template
    assert found(grid(template + rest, ("qa", "nerc-ocp-prod", "prod-us"))) == template


def test_a_star_joins_what_differs_by_team_or_by_purpose():
    teams = {"a": ("cart", "shop"), "b": ("web",), "c": ("api", "pay")}
    layout = "/{application}/{environment}/x.yaml"
    files = [path for team, names in teams.items() for path in grid(team + layout, names=names)]
    assert found(files) == "*/{application}/{environment}"
    flux = grid("clusters/{environment}/apps.yaml") + grid("apps/{environment}/podinfo-values.yaml")
    assert found(flux) == "*/{environment}"


def test_what_is_no_deployment_is_no_layout():
    assert not found(grid(".github/workflows/deploy-{environment}.yaml"))
    assert not found(grid("docs/{environment}/{application}.md"))
    assert not found(grid("cluster/base/{application}/{environment}/n.yaml"))
    assert not found([f"tests/test_{name}.py" for name in "abc"])
    others = [f"app{number}/values-eqiad.yaml" for number in range(60)]
    assert not found([*others, *grid("{application}/values-{environment}.yaml", names=["a"])])


def test_two_layouts_are_listed_with_their_files(config):
    values = "charts/{application}/values-{environment}.yaml"
    message = refused(config(commit(5, dict.fromkeys(grid(TEMPLATE + "/a.yml") + grid(values), 1))))
    assert f"{TEMPLATE} (4 files)" in message and f"{values} (4 files)" in message


def test_without_a_layout_it_is_said_what_to_do(config):
    folder = config(commit(5, {"deploy.yaml": 1}))
    message = refused(folder)
    assert "--deployments-from" in message and "--environments" in message
    git(folder, "branch", "staging")
    git(folder, "branch", "production")
    message = refused(folder)
    assert "branch for each environment: production, staging" in message and "--argocd" in message


# ---- Templates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template", ["apps", "apps/{application}", "{environment", "{}/{environment}", "{app}/dev"]
)
def test_a_template_without_an_environment_is_refused(config, template):
    assert TEMPLATE in refused(config(commit(5, {"a": 1})), template)


def test_the_last_part_of_a_template_is_a_file_or_a_folder():
    pattern = module.template_pattern("/tags/{environment}/{application}/")
    for path in ("tags/dev/shop", "tags/dev/shop/values.yaml"):
        assert pattern.fullmatch(path).groupdict() == {"environment": "dev", "application": "shop"}
    assert not module.template_pattern("{environment}/values.yaml").fullmatch("dev/values.yaml/a")


def test_the_application_stands_before_the_environment():
    pattern = module.template_pattern("*/{application}-{environment}")
    assert pattern.fullmatch("x/shop-api-dev/a").groups() == ("shop-api", "dev")


def test_a_template_that_matches_nothing_is_refused_with_the_nearest_paths(config):
    folder = config(commit(5, dict.fromkeys(grid(TEMPLATE + "/image.yaml"), 1)))
    assert "apps/cart/overlays/dev" in refused(folder, "app/{application}/overlays/{environment}")


def test_applications_are_chosen_by_patterns():
    names = ["shop-api", "shop-web", "cart"]
    assert module.choose_applications(names, []) == set(names)
    assert module.choose_applications(names, ["shop-*", "cart"]) == set(names)
    with pytest.raises(GitOpsError, match="'shp-web'; the nearest are shop-web"):
        module.choose_applications(names, ["cart", "shp-web"])
