"""Numbers in any container and layout: the right tensor, or one line."""

import decimal
import fractions

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sbbridge.data import DataError, Gaussian, GaussianMixture, ImageData, TensorData, as_floats
from sbbridge.data.arrays import as_real
from sbbridge.methods import Solution
from sbbridge.problems import GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import VPSDE
from sbbridge.solvers import Dynamics

VALUES = np.random.default_rng(0).normal(size=(6, 4))


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "as it is": lambda x: x,
    "Fortran": np.asfortranarray,
    "reversed": lambda x: x[::-1].copy()[::-1],
    "reversed columns": lambda x: x[:, ::-1].copy()[:, ::-1],
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "transposed": lambda x: x.T.copy().T,
    "read-only": read_only,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "objects": lambda x: x.astype(object),
    "lists": lambda x: x.tolist(),
    "a tuple of arrays": tuple,
    "a list of tensors": lambda x: [torch.from_numpy(row.copy()) for row in x],
    "lists of numpy's numbers": lambda x: [list(row) for row in x],
    "masked nowhere": lambda x: np.ma.masked_array(x, mask=False),
    "matrix": np.matrix,
    "a field of records": lambda x: np.rec.fromarrays([x, np.zeros(x.shape, "S3")], names="a,b")["a"],
    "tensor": lambda x: torch.from_numpy(x.copy()),
    "tensor, strided": lambda x: torch.from_numpy(np.repeat(x, 2, axis=1))[:, ::2],
    "pandas": pd.DataFrame,
    "polars": lambda x: pl.DataFrame(np.ascontiguousarray(x)),
}
DTYPES = [
    np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64, np.float16, np.float32,
    np.float64, np.complex64, np.complex128, "datetime64[s]", "timedelta64[s]", "U3", "S3",
]  # fmt: skip


def told(x, container=TensorData):
    """The tensor, or None where it was refused in one line."""
    try:
        return container(x).x
    except DataError as problem:
        assert str(problem).isprintable()
        return None


def check_one_array(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    x = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)))
    layout = data.draw(st.sampled_from(sorted(LAYOUTS)))
    if dtype.kind in "mM" and layout in ("objects", "lists"):
        return  # numpy makes whole numbers of years that Python has not
    try:
        brought = LAYOUTS[layout](x)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return  # the container itself does not take it
    found = told(brought)
    if dtype.kind not in "biuf":
        assert found is None, (dtype, layout)
        return
    expected = x.astype(np.float64)
    single = expected.astype(np.float32)
    if not np.isfinite(single).all():
        assert found is None, (dtype, layout)
        return
    assert found is not None, (dtype, layout)
    assert found.is_floating_point()
    assert not found.requires_grad
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-6, atol=1e-44)


@settings(max_examples=80, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:the matrix subclass")
def test_every_type_and_layout(data):
    check_one_array(data)


@pytest.mark.fuzz
@settings(max_examples=5000, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid", "ignore:the matrix subclass")
def test_every_type_and_layout_at_length(data):
    check_one_array(data)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:the matrix subclass", "error:.*not writable")
def test_each_layout_once(layout):
    np.testing.assert_array_equal(TensorData(LAYOUTS[layout](VALUES)).x.double().numpy(), VALUES)


MASKED = np.ma.masked_array(VALUES, mask=VALUES > 1)
FRAME = pd.DataFrame({"a": [1, 2, None], "b": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (VALUES + 1j, "complex128"),
        (torch.zeros(2, 2, dtype=torch.complex64), "complex64"),
        ([[1j, 2]], "complex"),
        (MASKED, "masked values"),
        ([MASKED[0], MASKED[3], MASKED[1], MASKED[2]], "masked values"),
        ([[np.ma.masked, 1.0]], "masked values"),
        ([[np.complex64(1), 1.0]], "complex"),
        (FRAME, "NaN"),
        (FRAME.astype({"a": "Int64"}), "NAType|NaN"),
        (FRAME.convert_dtypes(), "NAType|NaN"),
        (pd.DataFrame({"a": ["1", "2"]}), "expected numbers|array of"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "datetime"),
        (pd.DataFrame({"a": pd.Categorical(["x"])}), "expected numbers|array of"),
        (pl.DataFrame({"a": [1, None]}), "NaN"),
        ([[1.0, None]], "NoneType"),
        ([[1.0, "2"]], "expected"),
        ([[1.0], [1.0, 2.0]], "cannot be read as numbers|different shapes"),
        ([torch.zeros(2), torch.zeros(3)], "different shapes"),
        ([[decimal.Decimal(1)]], "Decimal"),
        (np.array([[1.0, object()]], dtype=object), "object"),
        (np.zeros((2, 2), dtype=[("a", float)]), "array of"),
        (torch.zeros(2, 2).to_sparse(), "to_dense"),
        (torch.zeros(2, 2, device="meta"), "meta"),
        (scipy.sparse.csr_matrix(VALUES), "expected numbers|cannot be read"),
        ("data.npy", "array of"),
        ({"a": 1}, "expected numbers"),
        (None, "expected numbers"),
        (np.full((2, 2), 1e300), "infinity"),
        (torch.full((2, 2), 1e39, dtype=torch.float64), "infinity"),
        (np.full((2, 2), np.longdouble("1e4000")), "infinity"),
        ([[10**400]], "cannot be read|infinity"),
        (np.zeros((3, 0)), "n >= 1"),
        (np.float32(1), "n >= 1"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_is_no_table_of_numbers_is_refused_in_one_line(x, words):
    with pytest.raises(DataError, match=words) as caught:
        TensorData(x)
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_torch_calls_unfinished_are_refused():
    for x in (torch.zeros(2, 2).to_sparse_csr(), torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
              torch.quantize_per_tensor(torch.zeros(2, 2), 0.1, 0, torch.qint8)):  # fmt: skip
        with pytest.raises(DataError, match=r"to_dense|plain numbers"):
            TensorData(x)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.tensor([[True, False]]), [[1.0, 0.0]]),
        (np.array([[True, False]]), [[1.0, 0.0]]),
        (torch.tensor([[3, -4]], dtype=torch.int8), [[3.0, -4.0]]),
        (torch.tensor([[7, 255]], dtype=torch.uint8), [[7.0, 255.0]]),
        (np.array([[65535]], dtype=np.uint16), [[65535.0]]),
        ([[fractions.Fraction(1, 2)]], [[0.5]]),
        (pd.DataFrame({"a": [1, 2], "b": [True, False]}), [[1.0, 1.0], [2.0, 0.0]]),
        (pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [0.5, 1.5]}), [[1.0, 0.5], [2.0, 1.5]]),
        (torch.tensor([[0.5]]).to(torch.float8_e4m3fn), [[0.5]]),
        (torch.tensor([[1 + 2j]]).conj().imag, [[-2.0]]),
        (np.array([[1.5]], dtype=np.longdouble), [[1.5]]),
        (range(0), None),
    ],
)
def test_whole_numbers_are_taken_as_they_are(x, expected):
    if expected is None:
        assert told(x) is None
    else:
        assert TensorData(x).x.tolist() == expected


def test_gradients_end_at_the_data():
    x = torch.ones(3, 2, requires_grad=True)
    for brought in (x, torch.nn.Parameter(x), 2 * x):
        data = TensorData(brought)
        assert not data.x.requires_grad
        assert not data.sample(3).requires_grad


class TestImages:
    @pytest.mark.parametrize(
        "x",
        [np.zeros((2, 1, 2, 2), dtype=np.uint16), torch.zeros(2, 1, 2, 2, dtype=torch.bool),
         torch.zeros(2, 1, 2, 2, dtype=torch.int64), np.full((2, 1, 2, 2), 255.0), np.full((2, 1, 2, 2), -1.5),
         np.ma.masked_array(np.zeros((2, 1, 2, 2), np.uint8), mask=True), torch.zeros(2, 1, 2, 2).to(torch.complex64),
         torch.zeros(2, 1, 2, 2).to_sparse(), np.zeros((0, 1, 2, 2)), np.zeros((2, 1, 0, 2), np.uint8)],
    )  # fmt: skip
    def test_numbers_of_unknown_range_are_refused(self, x):
        with pytest.raises(DataError) as caught:
            ImageData(x)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("layout", ["as it is", "Fortran", "reversed", "read-only", "strided", "tensor"])
    def test_bytes_in_any_layout(self, layout):
        x = np.random.default_rng(0).integers(0, 256, (5, 3, 2, 2), dtype=np.uint8)
        assert np.array_equal(ImageData(LAYOUTS[layout](x)).images.numpy(), x)

    @pytest.mark.parametrize("kind", [torch.int64, torch.uint16, torch.bool, torch.complex64])
    def test_only_bytes_are_scaled(self, kind):
        with pytest.raises(DataError, match="uint8 in 0 … 255 or float"):
            as_floats(torch.zeros(1, 1, 2, 2).to(kind))


class TestStates:
    @pytest.mark.parametrize("x", [VALUES + 1j, MASKED, np.full((2, 4), np.nan), np.full((2, 4), 1e300)])
    def test_prior_points_that_are_no_points_are_refused(self, x):
        problem = GaussianBridge(np.zeros(4), np.eye(4), np.zeros(4), np.eye(4), VPSDE())
        solution = Solution(problem, "exact", Dynamics(problem.reference, problem.control, problem.backward_score))
        assert sample(solution, num_steps=2, x1=VALUES[::-1]).x.shape == VALUES.shape
        with pytest.raises(ValueError, match=r"^x1 "):
            sample(solution, num_steps=2, x1=x)
        with pytest.raises(ValueError, match=r"^x1 must have the shape \[n, 4\]"):
            sample(solution, num_steps=2, x1=VALUES[:, :3])

    def test_parameters_of_laws(self):
        for wrong in (np.ma.masked_array(VALUES[0], mask=VALUES[0] > 0), VALUES[0] + 1j):
            with pytest.raises(DataError, match="mean"):
                Gaussian(wrong, np.eye(4))
        with pytest.raises(ValueError, match="finite"):
            GaussianMixture([1.0, np.nan], [[0.0], [1.0]], [1.0, 1.0])
        assert as_real(VALUES[::-1]).tolist() == VALUES[::-1].tolist()
