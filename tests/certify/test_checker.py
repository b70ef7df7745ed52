"""The checker stands alone, computes exactly, and accepts nothing that is not proven."""

import ast
import copy
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import gaussian_generator
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy import sparse

import preimage
from preimage.certify import checker
from preimage.certify.certify import exact_layers
from preimage.certify.checker.network import output

FOLDER = Path(checker.__file__).parent
TALL = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
DYADIC = st.integers(-(2**20), 2**20).map(lambda n: n / 2**10)


def _files(folder):
    rng = np.random.default_rng(0)
    generator = gaussian_generator((2, 8, 20), rng, bias=True)
    x = generator(rng.normal(size=(2, 2))) + 1e-6
    certificate = preimage.certify(generator, x, noise=1e-5, box=5.0)
    paths = [str(folder / name) for name in ("c.json", "net.safetensors", "x.npy")]
    certificate.save(paths[0])
    preimage.save(generator, paths[1])
    np.save(paths[2], x)
    return paths, certificate


def test_it_is_short_and_needs_the_standard_library_only():
    """Claim: files that can be read in an hour; no import but of Python and of each other."""
    texts = [path.read_text() for path in FOLDER.glob("*.py")]
    assert sum(bool(line.strip()) for text in texts for line in text.splitlines()) <= 580
    for node in (node for text in texts for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            own = node.level == 1 and (FOLDER / f"{node.module or '__init__'}.py").is_file()
            assert own or (node.level == 0 and node.module in sys.stdlib_module_names)


def test_a_copy_of_the_folder_runs_alone(tmp_path):
    """Claim: without the package, and without site-packages, it proves; exit code 0 only then."""
    paths, certificate = _files(tmp_path)
    assert (certificate.verdict != "undecided").all()
    shutil.copytree(FOLDER, tmp_path / "checker", ignore=shutil.ignore_patterns("__pycache__"))

    def run(*arguments):
        command = [sys.executable, "-E", "-s", "-S", "-m", "checker", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run(*paths).returncode == 0
    np.save(paths[2], np.load(paths[2])[::-1])
    swapped = run(*paths)
    assert swapped.returncode == 1
    assert "not proven" in swapped.stderr
    assert run(paths[0]).returncode == 2
    assert run(paths[0], paths[1], str(tmp_path / "none.npy")).returncode == 1


def test_it_runs_as_a_module_of_the_package(tmp_path):
    paths, _ = _files(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "preimage.certify.checker", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(st.lists(DYADIC, min_size=3, max_size=3), st.integers(0, 1000), st.booleans())
def test_witnesses_are_judged_exactly(z, seed, inside):
    """Claim: a witness is accepted up to the noise and not above, by fractions made by hand."""
    rng = np.random.default_rng(seed)
    generator = gaussian_generator((3, 5, 4), rng, "leaky_relu(0.3)", bias=True)
    layers = exact_layers(generator)
    values = [Fraction(v) for v in z]
    for layer in generator.layers:
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        a = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(b))
            for row, b in rows
        ]
        values = [v if v >= 0 else Fraction(0.3) * v for v in a]
    x = [float(v) for v in values]
    error = max(abs(v - Fraction(w)) for v, w in zip(values, x, strict=True))
    noise = float(error)
    steps = {True: np.inf, False: -np.inf}
    while (Fraction(noise) >= error) != inside and noise > 0:
        noise = float(np.nextafter(noise, steps[inside]))
    box = [(-checker.INF, checker.INF)] * 3
    exact = [[checker.exact(v) for v in part] for part in (x, z)]
    found = checker.explains(layers, exact[0], checker.exact(noise), box, exact[1])
    assert found == (Fraction(noise) >= error)


@given(st.floats(-800, 800), st.sampled_from(["sigmoid", "tanh"]))
def test_smooth_heads_are_bounded_on_both_sides(a, name):
    """Claim: the bounds hold the float value up to its rounding, and are no wider than needed."""
    low, high = output(name, checker.exact(a))
    value = preimage.activation.BY_NAME[name]()(np.array([a]))[0]
    assert low <= high
    assert high - low <= Fraction(1, 10**60) or abs(a) > 300
    assert float(low) - 1e-15 <= value <= float(high) + 1e-15


@given(st.integers(0, 10_000))
def test_no_multipliers_prove_a_box_without_its_codes(seed):
    """Claim: the checker itself is sound: random cuts that it accepts never lose a planted code."""
    rng = np.random.default_rng(seed)
    generator = preimage.from_arrays(
        [rng.integers(-3, 4, size=(4, 2)).astype(float), rng.integers(-3, 4, size=(5, 4))],
        activation="leaky_relu(0.5)" if seed % 2 else "relu",
        head="identity",
    )
    layers = exact_layers(generator)
    z = rng.integers(-8, 9, size=(1, 2)) / 4
    inside = [z[0], *(a[0] for a in generator.preactivations(z))]  # without any rounding
    x = list(map(checker.exact, inside[-1].tolist()))
    box = [[checker.exact(-3.0), checker.exact(3.0)]] * 2
    free = [[(-checker.INF, checker.INF)] * 4]
    head = layers[-1].observed(x, checker.exact(0.125), None)
    state = checker.State(layers, [box, *free, head])
    for _ in range(20):
        start = int(rng.integers(0, 2))
        layer = int(rng.integers(start, 2))
        unit, upper = int(rng.integers(len(inside[layer]))), int(rng.integers(2))
        value = float(inside[layer][unit]) + float(rng.normal()) * 10.0 ** -rng.integers(0, 4)
        multipliers = [
            [list(range(len(inside[i]))), *checker.scaled(rng.normal(size=len(inside[i])).tolist())]
            for i in range(start + 1, 3)
        ]
        claim = [layer, unit, upper, value.hex(), start, multipliers]
        ((_, claims),) = checker.read_steps([["cuts", claim]], layers)
        try:
            state.cuts(claims)
        except ValueError:
            continue
        assert not state.empty()
        for row, ends in zip(inside, state.intervals, strict=True):
            for value, (low, high) in zip(row.tolist(), ends, strict=True):
                assert low <= checker.exact(value) <= high


@pytest.mark.parametrize("start", [-1, 1, 7, True, 0.0, "0"])
def test_steps_that_start_nowhere_are_refused(start):
    layers = exact_layers(preimage.from_arrays([np.eye(2)]))
    one = (1.0).hex()
    with pytest.raises(ValueError, match="expected an integer"):
        checker.read_steps([["cuts", [0, 0, 0, one, start, [[[0], [1], 0]]]]], layers)


@pytest.mark.parametrize("bad", [-1, -2, 2, 10**9, True, 0.0, "0", None])
@pytest.mark.parametrize("field", ["layer", "unit", "upper"])
def test_indices_of_a_cut_are_in_their_ranges(field, bad):
    """Claim: an index counts from the start, so that -2 is not an end of an interval."""
    layers = exact_layers(preimage.from_arrays([np.eye(2)]))
    cut = {"layer": 0, "unit": 0, "upper": 0} | {field: bad}
    claim = [*cut.values(), (1.0).hex(), 0, [[[0], [1], 0]]]
    with pytest.raises(ValueError, match=r"expected an integer|an end moves outward"):
        checker.read_steps([["cuts", claim]], layers)


CHANGES = {
    "a ray": lambda r: r.update(ray=["0x0.0p+0", "0x1.0p+0"]),
    "a field less": lambda r: r.pop("reason"),
    "an interval less": lambda r: r["lower"].pop(),
    "an interval more": lambda r: r["upper"].append("inf"),
    "a coordinate less": lambda r: r["witnesses"][0].pop(),
    "no witness": lambda r: r["witnesses"].clear(),
    "a witness more": lambda r: r["witnesses"].append(r["witnesses"][0]),
    "an entry less": lambda r: r["question"]["observation"].pop(),
    "half a box": lambda r: r["question"]["box"].pop(),
    "a box of one side": lambda r: r["question"]["box"][0].pop(),
    "box beyond": lambda r: r["question"]["box"].__setitem__(0, ["inf"] * 2),
    "no distance": lambda r: r.update(distance=None),
    "infinite distance": lambda r: r.update(distance="inf"),
    "resolution 0": lambda r: r["question"].update(resolution="0x0.0p+0"),
    "resolution -1": lambda r: r["question"].update(resolution="-0x1.0p+0"),
    "resolution inf": lambda r: r["question"].update(resolution="inf"),
    "resolution nan": lambda r: r["question"].update(resolution="nan"),
    "resolution 1": lambda r: r["question"].update(resolution=1),
    "resolution true": lambda r: r["question"].update(resolution=True),
    "no resolution": lambda r: r["question"].pop("resolution"),
    "noise -1": lambda r: r["question"].update(noise="-0x1.0p+0"),
    "noise inf": lambda r: r["question"].update(noise="inf"),
    "less noise": lambda r: r.update(enclosed_noise="0x0.0p+0"),
    "verdict": lambda r: r.update(verdict="certain"),
    "a head": lambda r: r.update(head=[[], []]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_samples_of_another_form_are_refused(change):
    """Claim: fields, lengths and ranges are checked before a step is proven."""
    generator = preimage.from_arrays([TALL])
    record = preimage.certify(generator, [1.0, 2.0, 3.0], noise=0.25, box=8.0).claims[0].record()
    layers = exact_layers(generator)
    checker.read_sample(copy.deepcopy(record), layers)
    changed = copy.deepcopy(record)
    change(changed)
    with pytest.raises(ValueError, match=r"expected|needed|out of its range|no interval"):
        checker.read_sample(changed, layers)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": 1.5}',
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": 1e9}',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_json_is_strict(text):
    """Claim: no key twice, no number but integers, and no nesting that exhausts the parser."""
    with pytest.raises((ValueError, RecursionError)):
        checker.forms.read_json(text)


@pytest.mark.parametrize("slope", [1e-300, 5e-324, 1e-16, 0.999])
def test_slopes_of_any_size_meet_infinite_intervals(slope, tmp_path):
    """Claim: exact numbers of any size neither overflow nor turn into NaN; verdicts stay right."""
    activation = f"leaky_relu({slope})"
    generator = preimage.from_arrays([TALL], activation=activation, head=activation)
    for x in ([1.0, 2.0, 3.0], [1.0, -slope, 0.0]):
        for box in (None, 5.0):
            found = preimage.certify(generator, x, noise=1e-3, box=box)
            assert "checker" not in found.reason
            assert found.verdict in ("unique", "undecided", "ambiguous")
    tiny = checker.exact(5e-324)
    with pytest.raises(ValueError, match="unbounded"):
        checker.least(tiny, tiny, -checker.INF, tiny)
    assert checker.least(-tiny, -tiny, -checker.INF, tiny) == -1


@pytest.mark.parametrize("name", ["elu(0.5)", "softplus(0.5)", "gelu(0.5)", "abs(1.0)", "selu"])
def test_activations_that_it_does_not_know_are_refused(name, tmp_path):
    """Claim: the number in a name is taken for a slope only where it is one."""
    paths, _ = _files(tmp_path)
    data = Path(paths[1]).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].replace(b"relu", name.encode(), 1)
    Path(paths[1]).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(ValueError, match="unknown activation"):
        checker.check(*paths)


def test_sparse_networks_are_read(tmp_path):
    """Claim: a network in CSR form is the one in dense form, and no other file of it passes."""
    rng = np.random.default_rng(0)
    plain = gaussian_generator((2, 8, 20), rng, bias=True)
    first, last = plain.layers
    weight = sparse.csr_array(np.where(rng.random((20, 8)) < 0.4, last.weight, 0.0))
    network = preimage.Generator((first, preimage.Layer(weight, last.bias, last.activation)))
    x = network(rng.normal(size=2)) + 1e-6
    paths = [str(tmp_path / name) for name in ("c.json", "net.safetensors", "x.npy")]
    found = preimage.certify(network, x, noise=1e-5, box=5.0)
    assert found.verdict != "undecided"
    found.save(paths[0])
    np.save(paths[2], x[None])
    preimage.save(network, paths[1])
    assert checker.check(*paths)[0]["verdict"] == str(found.verdict)
    tensors = load_file(paths[1])
    with safe_open(paths[1], "np") as opened:
        metadata = opened.metadata()
    for part, change in (("data", 1.5), ("indices", 8), ("indices", -1), ("indptr", 1)):
        changed = {name: value.copy() for name, value in tensors.items()}
        changed[f"layers.1.weight.{part}"][0] = change
        save_file(changed, paths[1], metadata)
        with pytest.raises((ValueError, KeyError)):
            checker.check(*paths)
    larger = metadata["layers"].replace("[20, 8]", "[20, 4000000]")
    save_file(tensors, paths[1], {**metadata, "layers": larger})
    with pytest.raises(ValueError, match=r"do not chain|too large"):
        checker.check(*paths)
