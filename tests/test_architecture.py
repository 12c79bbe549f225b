"""The floors of the house: a module imports its own floor and lower ones, and none in a circle."""

import ast

from conftest import REPO

FLOORS = [
    ("errors", "shapes", "condition"),
    (
        "cache",
        "tuning",
        "names",
        "rng",
        "pictures",
        "degradation",
        "degradations",
        "sharding",
        "distribution",
        "remote",
    ),
    ("diffusion", "autoencoding"),
    ("models",),
    ("data",),
    ("sampling",),
    ("training",),
    ("interop",),
    ("evaluation", "text"),
    ("config", "settings"),
    ("objective", "conditioning", "reconstruction"),
    ("trained", "trained_autoencoder"),
    ("autoencoders", "latent_space"),
    ("guides", "datasets"),
    ("build",),
    ("samplers",),
    ("draw", "evaluate", "evaluate_autoencoder"),
    ("likelihood",),
    ("run",),
    ("report",),
    ("imports", "exports"),
    ("__init__",),
    ("modes", "train_diffusion", "train_autoencoder", "train"),
    ("sweep", "search", "train_many"),
    ("main",),
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
FILES = sorted((REPO / "ddpm").rglob("*.py"))


def module_of(path):
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


MODULES = {module_of(path) for path in FILES}


def imports(path, inner=True):
    """Modules a file imports; with `inner` False only those at its top level."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if inner else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in full)


def test_every_module_imports_its_own_floor_and_lower_ones():
    for path in FILES:
        here = FLOOR[module_of(path).split(".")[1]]
        for name in imports(path):
            if name.startswith("ddpm."):
                assert FLOOR[name.split(".")[1]] <= here, f"{module_of(path)} imports {name}"


def test_no_import_circle():
    graph = {module_of(path): [name for name in imports(path) if name in MODULES] for path in FILES}
    done = set()

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_diffusion_is_pure_and_flax_lives_in_models():
    for path in FILES:
        floor = module_of(path).split(".")[1]
        names = set(imports(path))
        assert floor == "models" or not any(name.startswith("flax") for name in names), path
        if floor not in (
            "names",
            "objective",
            "conditioning",
            "reconstruction",
            "trained",
            "trained_autoencoder",
            "guides",
            "samplers",
            "latent_space",
            "datasets",
            "build",
            "likelihood",
            "config",
            "evaluate",
            "evaluate_autoencoder",
            "run",
            "imports",
            "exports",
            "modes",
            "train_diffusion",
            "train_autoencoder",
            "train",
            "settings",
            "sweep",
            "search",
            "train_many",
            "main",
        ):
            assert not any(name.startswith("ml_collections") for name in names), path
        if floor == "diffusion":
            pure = ("ddpm", "jax", "jaxtyping", "numpy", "diffrax")
            standard = ("abc", "collections", "dataclasses", "functools", "math", "typing")
            assert all(name.split(".")[0] in (*pure, *standard) for name in names), path


def test_import_module_is_in_names_alone():
    users = {path.name for path in FILES if "import_module(" in path.read_text()}
    assert users == {"names.py"}


def test_slow_imports_wait_until_they_are_needed():
    slow = ("tensorflow", "sklearn", "grain", "matplotlib", "diffrax", "tokenizers", "safetensors", "optuna")
    for path in FILES:
        assert not [name for name in imports(path, inner=False) if name.startswith(slow)], path


def test_a_file_fits_on_a_few_screens():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path
