"""deployments → flows → tasks → capo_core → schemas, never back; and what must stay light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("schemas", "capo_core", "tasks", "flows", "deployments")
FORBIDDEN_OUTSIDE = {"prefect": ("tasks", "flows", "deployments"), "mlflow": ("tasks",)}


def _imports(path: Path) -> set[str]:
    """Return the top-level packages a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_imports_one_above_it(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    wrong = {str(p.relative_to(ROOT)): _imports(p) & above for p in (ROOT / layer).rglob("*.py")}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("layer", LAYERS)
def test_prefect_and_mlflow_stay_in_their_layers(layer: str) -> None:
    banned = {package for package, allowed in FORBIDDEN_OUTSIDE.items() if layer not in allowed}
    wrong = {str(p.relative_to(ROOT)): _imports(p) & banned for p in (ROOT / layer).rglob("*.py")}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_schemas_depend_on_pydantic_polars_and_pyarrow_only() -> None:
    allowed = {"schemas", "pydantic", "pydantic_core", "polars", "pyarrow"} | set(sys.stdlib_module_names)
    wrong = {p.name: _imports(p) - allowed for p in (ROOT / "schemas").rglob("*.py")}
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    "module",
    [
        "capo_core.corpora",
        "capo_core.splits",
        "capo_core.agreement",
        "capo_core.stylometry.separability",
        "capo_core.preference_pairs",
        "capo_core.evaluation",
        "capo_core.judging.questions",
        "capo_core.human_validation.sheet",
        "capo_core.config_file",
        "capo_core.versions",
        "deployments.cli",
    ],
)
def test_importing_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_flows_load_without_torch() -> None:
    # A run whose steps all come from the cache must not pay for loading torch.
    code = "import sys, flows.stages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
