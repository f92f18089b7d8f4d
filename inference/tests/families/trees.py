"""Trains one small model of each family that scikit-learn, LightGBM and XGBoost export to ONNX.

    python trees.py DATA        DATA holds ai4i2020/ and cmapss/

Writes NAME.onnx for each, those of made.py too, the rows they are tested on (ai4i.rows, fd001.rows:
little-endian f32) and models.json, which says what each takes and what onnxruntime answers to the
first rows. Every draw is seeded; another version of a package may still export another file.
"""

import gzip
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools.convert import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import XGBClassifier, XGBRegressor

import made
from references import answers

SEED = 7
HERE = Path(__file__).parent
OPSETS = {"": 17, "ai.onnx.ml": 3}
SENSORS = [2, 3, 4, 7, 11, 12, 15, 20]  # of FD001, those that move
CYCLES = 30
RUL_MAX = 125.0
GOLDEN_ROWS = 40


def ai4i(folder):
    """Six columns (type as 0, 1, 2) and the failure mode, in words."""
    text = gzip.open(folder / "ai4i2020" / "ai4i2020.csv.gz", "rt").read().splitlines()
    rows, modes = [], []
    for line in text[1:]:
        cells = line.split(",")
        rows.append(["LMH".index(cells[2]), *map(float, cells[3:8])])
        flags = [int(cell) for cell in cells[9:13]]
        modes.append(["wear", "heat", "power", "strain"][flags.index(1)] if any(flags) else "none")
    rows, modes = np.array(rows, np.float32), np.array(modes)
    order = np.random.default_rng(SEED).permutation(len(rows))
    train, test = order[:7000], order[7000:]
    return rows[train], modes[train], rows[test]


def fd001(folder):
    """Last, mean, spread and slope of eight sensors over thirty cycles, and the cycles left."""

    def table(name):
        return np.loadtxt(gzip.open(folder / "cmapss" / name, "rt"))

    def features(window):
        time = np.arange(CYCLES) - (CYCLES - 1) / 2
        slope = time @ (window - window.mean(0)) / (time @ time)
        return np.concatenate([window[-1], window.mean(0), window.std(0), slope])

    rows, left = [], []
    train = table("train_FD001.txt.gz")
    for unit in np.unique(train[:, 0]):
        series = train[train[:, 0] == unit][:, [4 + s for s in SENSORS]]
        for end in range(CYCLES, len(series) + 1, 3):
            rows.append(features(series[end - CYCLES : end]))
            left.append(min(len(series) - end, RUL_MAX))
    test = table("test_FD001.txt.gz")
    held = []
    for unit in np.unique(test[:, 0]):
        series = test[test[:, 0] == unit][:, [4 + s for s in SENSORS]]
        for end in range(CYCLES, len(series) + 1, 10):
            held.append(features(series[end - CYCLES : end]))
    return np.array(rows, np.float32), np.array(left, np.float32), np.array(held, np.float32)


def skl(model, x, options=None, opsets=None, double=False, inputs=None):
    kind = DoubleTensorType if double else FloatTensorType
    types = inputs or [("X", kind([None, x.shape[1]]))]
    if options is not None:
        options = {id(model): options}
    return to_onnx(model, initial_types=types, options=options, target_opset=opsets or OPSETS)


def gbm(model, x, **options):
    return convert_lightgbm(
        model, initial_types=[("X", MlFloat([None, x.shape[1]]))], target_opset=15, **options
    )


def xgb(model, x):
    return convert_xgboost(
        model, initial_types=[("X", MlFloat([None, x.shape[1]]))], target_opset=15
    )


def classifiers(x, modes):
    """Name, ONNX model, and what `output` the score needs if it needs one."""
    fault = (modes != "none").astype(int)
    words = np.where(fault == 1, "fault", "good")
    numbers = np.unique(modes, return_inverse=True)[1]
    seeded = {"random_state": SEED}
    wear = {"class": "wear"}

    def scaled(model):
        return make_pipeline(StandardScaler(), model)

    yield "tree_binary", skl(DecisionTreeClassifier(max_depth=6, **seeded).fit(x, words), x), {}
    forest = RandomForestClassifier(12, max_depth=7, **seeded)
    yield "forest_binary", skl(forest.fit(x, fault), x), {}
    yield "forest_words", skl(forest.fit(x, modes), x), wear
    yield "forest_double", skl(forest, x, double=True), wear
    yield "forest_tensor", skl(forest.fit(x, numbers), x, {"zipmap": False}), {"class": "4"}
    yield "forest_columns", skl(forest, x, {"zipmap": "columns"}), {"name": "i3"}
    extra = ExtraTreesClassifier(12, max_depth=7, **seeded)
    yield "extra_multi", skl(extra.fit(x, numbers), x), {"class": "4"}
    boosted = GradientBoostingClassifier(n_estimators=20, max_depth=3, **seeded)
    yield "boosted_binary", skl(boosted.fit(x, fault), x), {}
    boosted = GradientBoostingClassifier(n_estimators=8, max_depth=3, **seeded)
    yield "boosted_multi", skl(boosted.fit(x, modes), x), wear
    raw = {"raw_scores": True}
    yield "boosted_multi_raw", skl(boosted, x, raw), wear
    boosted = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=15, **seeded)
    holes = x.copy()
    holes[::7, 3] = np.nan
    yield "hist_binary", skl(boosted.fit(holes, words), x), {}
    boosted = HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=15, **seeded)
    yield "hist_multi", skl(boosted.fit(x, modes), x), wear
    yield "ada", skl(AdaBoostClassifier(n_estimators=10, **seeded).fit(x, fault), x), {}
    small = {"n_estimators": 20, "num_leaves": 15, "verbose": -1, **seeded}
    yield "lightgbm_binary", gbm(LGBMClassifier(**small).fit(holes, fault), x), {}
    yield "lightgbm_words", gbm(LGBMClassifier(**small).fit(x, words), x), {}
    few = {**small, "n_estimators": 6}
    yield "lightgbm_multi", gbm(LGBMClassifier(**few).fit(x, numbers), x), {"class": "4"}
    of_types = LGBMClassifier(**small, min_child_samples=5).fit(
        x, fault, categorical_feature=[0]
    )
    yield "lightgbm_category", gbm(of_types, x, zipmap=False), {}
    small = {"n_estimators": 20, "max_depth": 4, **seeded}
    yield "xgboost_binary", xgb(XGBClassifier(**small).fit(holes, fault), x), {}
    few = {**small, "n_estimators": 6}
    yield "xgboost_multi", xgb(XGBClassifier(**few).fit(x, numbers), x), {"index": 4}

    yield "logistic_binary", skl(scaled(LogisticRegression()).fit(x, fault), x), {}
    yield "logistic_multi", skl(scaled(LogisticRegression()).fit(x, modes), x), wear
    each = OneVsRestClassifier(LogisticRegression(max_iter=500))
    yield "logistic_each", skl(scaled(each).fit(x, modes), x), wear
    loss = SGDClassifier(loss="modified_huber", **seeded)
    yield "sgd", skl(scaled(loss).fit(x, modes), x), wear
    part = np.concatenate([np.flatnonzero(fault), np.flatnonzero(fault == 0)[:400]])
    vectors = SVC(probability=True, **seeded)
    yield "svm_binary", skl(scaled(vectors).fit(x[part], fault[part]), x), {}
    yield "svm_multi", skl(scaled(vectors).fit(x[part], modes[part]), x), wear
    vectors = SVC(kernel="poly", degree=2, **seeded)
    yield "svm_votes", skl(scaled(vectors).fit(x[part], modes[part]), x), wear
    net = MLPClassifier((12, 6), max_iter=60, **seeded)
    yield "mlp_binary", skl(scaled(net).fit(x, words), x), {}
    yield "mlp_multi", skl(scaled(net).fit(x, modes), x), wear
    yield "bayes", skl(GaussianNB().fit(x, modes), x), wear
    steady = CalibratedClassifierCV(RandomForestClassifier(5, max_depth=5, **seeded), cv=2)
    yield "calibrated", skl(steady.fit(x, fault), x), {}
    votes = VotingClassifier(
        [("l", scaled(LogisticRegression())), ("t", DecisionTreeClassifier(max_depth=4))],
        voting="soft",
        flatten_transform=False,
    )
    yield "voting", skl(votes.fit(x, fault), x), {}
    columns = ColumnTransformer(
        [
            ("type", OneHotEncoder(handle_unknown="ignore"), [0]),
            ("warm", make_pipeline(SimpleImputer(), StandardScaler()), [1, 2]),
            ("load", MinMaxScaler(), [3, 4]),
            ("worn", Binarizer(threshold=180.0), [5]),
        ]
    )
    of_columns = make_pipeline(columns, LogisticRegression())
    yield "columns", skl(of_columns.fit(x, fault), x), {}
    names = ["type", "air", "process", "speed", "torque", "wear"]
    frame = pandas.DataFrame(x, columns=names)
    by_name = ColumnTransformer(
        [
            ("type", OneHotEncoder(), ["type"]),
            ("rest", StandardScaler(), names[1:]),
        ]
    )
    of_frame = make_pipeline(by_name, GradientBoostingClassifier(n_estimators=10, **seeded))
    inputs = [(name, FloatTensorType([None, 1])) for name in names]
    yield "frame", skl(of_frame.fit(frame, fault), x, inputs=inputs), {}
    binned = make_pipeline(KBinsDiscretizer(4, encode="onehot-dense"), LogisticRegression())
    yield "binned", skl(binned.fit(x, fault), x), {}


def anomalies(x, modes):
    good = x[modes == "none"]
    forest = IsolationForest(n_estimators=20, max_samples=64, random_state=SEED).fit(good)
    yield "isolation", skl(forest, x), {}
    both = skl(forest, x, {"score_samples": True})
    yield "isolation_samples", both, {"name": "score_samples"}
    scaled = make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, random_state=SEED))
    yield "isolation_scaled", skl(scaled.fit(good), x), {}
    scaled = make_pipeline(StandardScaler(), OneClassSVM(nu=0.02))
    yield "one_class", skl(scaled.fit(good[:2000]), x), {}


def regressors(x, y):
    seeded = {"random_state": SEED}

    def scaled(model):
        return make_pipeline(StandardScaler(), model)

    yield "tree_regressor", skl(DecisionTreeRegressor(max_depth=7, **seeded).fit(x, y), x), {}
    forest = RandomForestRegressor(10, max_depth=7, **seeded).fit(x, y)
    yield "forest_regressor", skl(forest, x), {}
    forest = ExtraTreesRegressor(10, max_depth=7, **seeded)
    yield "extra_regressor", skl(forest.fit(x, y), x), {}
    boosted = GradientBoostingRegressor(n_estimators=40, max_depth=3, **seeded)
    yield "boosted_regressor", skl(boosted.fit(x, y), x), {}
    boosted = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=15, **seeded)
    yield "hist_regressor", skl(boosted.fit(x, y), x), {}
    small = {"n_estimators": 40, "num_leaves": 15, "verbose": -1, **seeded}
    yield "lightgbm_regressor", gbm(LGBMRegressor(**small).fit(x, y), x), {}
    forest = LGBMRegressor(
        **small, boosting_type="rf", subsample=0.6, subsample_freq=1
    )
    yield "lightgbm_forest", gbm(forest.fit(x, y), x), {}
    small = {"n_estimators": 40, "max_depth": 4, **seeded}
    yield "xgboost_regressor", xgb(XGBRegressor(**small).fit(x, y), x), {}
    counted = XGBRegressor(**small, objective="count:poisson")
    yield "xgboost_poisson", xgb(counted.fit(x, y), x), {}
    yield "linear", skl(scaled(LinearRegression()).fit(x, y), x), {}
    chain = make_pipeline(SimpleImputer(), RobustScaler(), PCA(8), Ridge())
    yield "chain", skl(chain.fit(x, y), x), {}
    chain = make_pipeline(MaxAbsScaler(), Normalizer("l1"), Ridge(1e-3))
    yield "normalized", skl(chain.fit(x, y), x), {}
    chain = make_pipeline(MinMaxScaler(clip=True), PolynomialFeatures(2), Ridge())
    yield "polynomial", skl(chain.fit(x[:, :6], y), x[:, :6]), {}
    yield "svm_regressor", skl(scaled(SVR(C=20.0)).fit(x[::8], y[::8]), x), {}
    net = MLPRegressor(hidden_layer_sizes=(16, 8), max_iter=200, **seeded)
    yield "mlp_regressor", skl(scaled(net).fit(x, y), x), {}
    votes = VotingRegressor([("l", scaled(Ridge())), ("t", DecisionTreeRegressor(max_depth=4))])
    yield "voting_regressor", skl(votes.fit(x, y), x), {}
    stack = StackingRegressor([("l", scaled(Ridge())), ("t", DecisionTreeRegressor(max_depth=4))])
    yield "stacked_regressor", skl(stack.fit(x, y), x), {}


def main():
    data = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    np.random.seed(SEED)
    x, modes, held_x = ai4i(data)
    r, y, held_r = fd001(data)
    held = {"ai4i": held_x, "fd001": held_r}
    for name, rows in held.items():
        rows.astype("<f4").tofile(HERE / f"{name}.rows")
    sets = [
        ("ai4i", classifiers(x, modes)),
        ("ai4i", anomalies(x, modes)),
        ("ai4i", made.everything(held_x, SEED)),
        ("fd001", regressors(r, y)),
    ]
    models = []
    for rows, family in sets:
        for name, model, output in family:
            file = HERE / f"{name}.onnx"
            file.write_bytes(model.SerializeToString())
            columns = held[rows].shape[1]
            if name == "polynomial":
                columns = 6
            scores, classes = answers(file, held[rows][:GOLDEN_ROWS, :columns], output)
            models.append(
                {
                    "name": name,
                    "rows": rows,
                    "columns": columns,
                    "output": output,
                    "scores": scores,
                    "classes": classes,
                }
            )
    lines = ",\n".join(json.dumps(model) for model in models)
    (HERE / "models.json").write_text(f"[\n{lines}\n]\n")


main()
