"""Any scikit-learn classifier or pipeline, stored by skops: plain files, of types that are known to be harmless."""

import importlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from ml_platform.spec import DeclarationError, ModelRefused, ModelSpec, NoContributions, TooFewLabels
from ml_platform.training.contributions import Contributions
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.model import Model, in_blocks, read_schema
from ml_platform.training.training_set import LABEL

MODEL_FILE = "model.skops"
# Modules whose types only hold numbers. skops itself trusts a part of them.
_HARMLESS = ("sklearn.", "numpy.", "scipy.")

# Steps that make one column of each, of that one alone.
_INPUT_BY_INPUT = (
    "SimpleImputer",
    "StandardScaler",
    "MinMaxScaler",
    "MaxAbsScaler",
    "RobustScaler",
    "QuantileTransformer",
    "PowerTransformer",
)


@dataclass(frozen=True, kw_only=True)
class Scikit(Model):
    """A fitted pipeline; it gets the encoded matrix, missing values as NaN, categories as numbers."""

    estimator: ClassVar[str] = "sklearn"
    file: ClassVar[str] = MODEL_FILE
    fitted: Any

    def predict_matrix(self, matrix: Floats) -> Floats:
        """P(label = 1)."""
        if not len(matrix):
            return np.empty(0)
        return in_blocks(matrix, lambda block: np.asarray(self.fitted.predict_proba(block)[:, 1], dtype=np.float64))

    def contributions(self, row: Floats) -> Contributions:
        """Of a logistic regression behind steps that treat each input alone: coefficient times value.

        Raises:
            NoContributions: the pipeline is any other one.
        """
        from sklearn.linear_model import LogisticRegression

        steps = [step for _, step in self.fitted.steps]
        names = [type(step).__name__ for step in steps]
        if not isinstance(steps[-1], LogisticRegression):
            raise NoContributions(
                f"no contributions for {names[-1]}: of scikit-learn's models only LogisticRegression adds its inputs "
                f"up, and what is guessed by changing inputs of the others depends on how they are changed"
            )
        mixing = [name for name in names[:-1] if name not in _INPUT_BY_INPUT]
        if mixing or steps[-1].coef_.shape != (1, len(row)):
            raise NoContributions(
                f"no contributions for {' and '.join(mixing) or 'steps that add or drop inputs'} before "
                f"{names[-1]}: its coefficients are not those of single inputs any more"
            )
        asked = row.reshape(1, -1)
        changed = asked if len(steps) == 1 else self.fitted[:-1].transform(asked)
        return Contributions(
            values=steps[-1].coef_[0] * np.asarray(changed, dtype=np.float64)[0],
            base=float(steps[-1].intercept_[0]),
            raw=float(self.fitted.decision_function(asked)[0]),
            scale="log-odds",
            method="coefficient times value, after the steps before",
            baseline="each input at what those steps turn into 0 (its mean, after a StandardScaler)",
            baselines=(None,) * len(row),
        )

    def weights(self) -> Floats:
        """Coefficients and intercept of the last step, where it has them."""
        last = self.fitted.steps[-1][1]
        found = [getattr(last, name) for name in ("coef_", "intercept_") if hasattr(last, name)]
        return np.concatenate([np.ravel(each) for each in found]).astype(np.float64) if found else np.empty(0)

    def _write(self, path: Path) -> None:
        path.write_bytes(_stored(self.fitted))

    def _digests(self) -> dict[str, str]:
        return {self.file: _content_digest(_stored(self.fitted))}


def train_scikit(spec: ModelSpec, rows: pl.DataFrame, *, threads: int) -> Scikit:
    """Fit the declared steps on all rows; the seed goes to every step that takes one.

    Raises:
        DeclarationError: a step cannot be made, or the last one gives no probabilities, or what is fitted could only be
            stored as a pickle.
        TooFewLabels: fewer than two classes.
    """
    import sklearn

    if rows.is_empty():
        raise TooFewLabels("there are no labelled rows to train on")
    if rows[LABEL].n_unique() < 2:
        raise TooFewLabels(f"the {rows.height} labelled rows hold fewer than two classes; a model needs both")
    encoding = Encoding.learn(spec, rows)
    unfitted = _made(spec, threads)
    try:
        fitted = unfitted.fit(encoding.frame_matrix(rows), rows[LABEL].cast(pl.Int64).to_numpy())
    except ValueError as error:
        raise DeclarationError(f"model {spec.name} cannot be fitted: {error}; change its steps") from error
    if not hasattr(fitted, "predict_proba"):
        raise DeclarationError(
            f"model {spec.name}: its last step gives no probabilities (predict_proba); choose another"
        )
    _refuse_foreign(_stored(fitted), f"model {spec.name}", DeclarationError)
    return Scikit(
        encoding=encoding,
        facts={"rows": rows.height, "threads": threads, "device": "cpu", "scikit-learn": sklearn.__version__},
        importances=_importances(fitted, encoding.inputs),
        fitted=fitted,
    )


def load_scikit(folder: Path) -> Scikit:
    """A saved pipeline.

    Raises:
        ModelRefused: a file is missing or damaged, or holds a type that is not known to be harmless.
    """
    import skops.io

    schema = read_schema(folder)
    content = (folder / MODEL_FILE).read_bytes()
    trusted = _refuse_foreign(content, str(folder / MODEL_FILE), ModelRefused)
    try:
        fitted = skops.io.loads(content, trusted=trusted)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, ImportError) as error:
        raise ModelRefused(f"{folder / MODEL_FILE} is no stored pipeline ({error}); register it again") from error
    return Scikit(encoding=schema["encoding"], facts=schema["facts"], importances=schema["importances"], fitted=fitted)


def _made(spec: ModelSpec, threads: int) -> Any:
    from sklearn.pipeline import make_pipeline

    steps: Sequence[Sequence[Any]] = spec.parameters.get("steps", ())
    if not steps:
        raise DeclarationError(f"model {spec.name} names no steps; write parameters=scikit((class, arguments), ...)")
    return make_pipeline(*(_step(spec, path, arguments, threads) for path, arguments in steps))


def _step(spec: ModelSpec, path: str, arguments: Mapping[str, Any], threads: int) -> Any:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        made = kind(**arguments)
        known = made.get_params()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise DeclarationError(f"model {spec.name}: the step {path} cannot be made: {error}") from error
    given = {"random_state": spec.seed, "n_jobs": threads}
    return made.set_params(**{key: value for key, value in given.items() if key in known and key not in arguments})


def _stored(fitted: Any) -> bytes:
    import skops.io

    content: bytes = skops.io.dumps(fitted)
    return content


def _refuse_foreign(content: bytes, whose: str, error: type[DeclarationError] | type[ModelRefused]) -> list[str]:
    """The types that have to be trusted, if all are harmless."""
    import skops.io

    try:
        found: list[str] = skops.io.get_untrusted_types(data=content)
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as damaged:
        raise ModelRefused(f"{whose} is no stored pipeline ({damaged}); register it again") from damaged
    foreign = [name for name in found if not name.startswith(_HARMLESS)]
    if foreign:
        raise error(
            f"{whose} holds {', '.join(foreign)}, which could run code when it is opened; only types of scikit-learn, "
            f"NumPy and SciPy are stored"
        )
    return found


def _content_digest(content: bytes) -> str:
    """Of what is stored, without the addresses in memory and times that two writings of the same differ in."""
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        names = {name: sha256(opened.read(name)).hexdigest() for name in opened.namelist() if name != "schema.json"}
        schema = json.loads(opened.read("schema.json"))
    return sha256(json.dumps(_plain(schema, names, {}), sort_keys=True).encode()).hexdigest()


def _plain(thing: Any, files: Mapping[str, str], seen: dict[int, int]) -> Any:
    if isinstance(thing, dict):
        plain = {key: _plain(value, files, seen) for key, value in thing.items() if key not in ("__id__", "file")}
        if "__id__" in thing:
            plain["__id__"] = seen.setdefault(thing["__id__"], len(seen))
        if "file" in thing:
            plain["file"] = files.get(thing["file"], thing["file"])
        return plain
    return [_plain(each, files, seen) for each in thing] if isinstance(thing, list) else thing


def _importances(fitted: Any, inputs: Sequence[str]) -> dict[str, float]:
    """By the last step's own measure; none where it has none, or where the steps before changed the inputs."""
    last = fitted.steps[-1][1]
    found = getattr(last, "feature_importances_", None)
    if found is None and hasattr(last, "coef_"):
        found = np.abs(np.asarray(last.coef_)).ravel()
    if found is None or len(found) != len(inputs) or not np.sum(found):
        return {}
    return {name: float(share) for name, share in zip(inputs, np.asarray(found) / np.sum(found), strict=True)}
