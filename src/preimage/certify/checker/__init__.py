"""Check a certificate: ``python -m preimage.certify.checker CERTIFICATE NETWORK OBSERVATION``.

This folder needs the Python standard library only, and nothing of ``preimage`` outside it. A copy
of the folder runs alone: ``python -m checker``. It trusts nothing in the certificate: first the
form of the file is checked (``forms``), then every claim is proven again in exact arithmetic
(``steps``). NETWORK is a safetensors file as ``preimage.save`` writes it, OBSERVATION an npy file.
The questions that were answered are printed; ``--noise``, ``--box`` and ``--resolution`` say what
they have to be. The exit code is 0 if every verdict is proven, and 1 if one is not, or is
``undecided``.
"""

from .files import FORMAT, read_array, read_certificate, read_network, seal, sensing_digest
from .forms import DEPTH, VERDICTS, items, read_sample, read_steps
from .network import INF, UNIT, Layer, exact, explains, latent_layer, rational, require, scaled
from .steps import State, least, leaves

__all__ = ["DEPTH", "FORMAT", "INF", "UNIT", "VERDICTS", "Layer", "State", "check", "describe",
           "exact", "explains", "latent_layer", "least", "prove", "rational",
           "read_certificate", "read_sample", "read_steps", "require", "scaled", "seal",
           "sensing_digest"]  # fmt: skip


def prove(layers, sample, boxes=None, deadline=INF):
    """Prove one sample's claims, as ``read_sample`` gives them.

    ``boxes`` verifies subdivisions, in outward-rounded floats; see ``preimage.certify.boxes``.
    ``deadline`` is when to give up, a time of ``time.perf_counter``.
    """
    (x, noise, box, resolution), (verdict, distance, ends, witnesses), proof = sample
    wide, head, tree, tokens = proof
    known = all(explains(layers, x, noise, box, z) for z in witnesses)
    require(known, "a witness does not explain the observation")
    observed = layers[-1].observed(x, wide, head)
    if tokens is None:
        free = [[(-INF, INF)] * layer.count for layer in layers[1:-1]]
        parts = list(leaves(State(layers, [box, *free, observed], deadline), tree))
    else:
        require(boxes, "a subdivision: only `preimage check` can prove it")
        parts = boxes([layer.given for layer in layers[1:]], observed, box, tokens)
    if verdict == "infeasible":
        require(not parts, "there may be a latent")
    for low, high, *held in zip(*ends, *parts, strict=True) if ends else ():
        require(all(low <= p[0] and p[1] <= high for p in held), "a latent may lie elsewhere")
    if verdict == "unique":
        pairs = [pair for part in parts for pair in zip(part, witnesses[0], strict=True)]
        far = [abs(v - w) for ends, w in pairs for v in ends]
        require(far and max(far) <= distance <= resolution, "a latent may be far from the witness")
    elif verdict == "ambiguous":
        apart = max(abs(v - w) for v, w in zip(*witnesses, strict=True))
        require(apart >= distance > resolution, "the witnesses are near each other")


def check(certificate, network, observation, sensing=None, expected=None, boxes=None):
    """Prove every verdict; returns the samples' records, whose questions and claims then hold.

    ``sensing`` is an npy file: a mask (bool), one for all samples or one each, or a matrix.
    ``expected`` gives what ``noise``, ``box`` (its largest size) and ``resolution`` have to be.
    """
    (layers, digest), sensed = read_network(network), None
    n = layers[-1].count
    masks, is_mask = read_array(sensing, n) if sensing else ([[True] * n], True)
    if not is_mask:
        flat, shape = [float(v) for row in masks for v in row], (len(masks), n)
        require(not layers[-1].smooth, "sensing: expected a piecewise linear head")
        layers.append(Layer(flat, shape, [0.0] * shape[0], [1.0] * shape[0]))
        masks, sensed = [[True] * shape[0]], sensing_digest(flat, shape)
    rows, _ = read_array(observation, layers[-1].count)
    records = items(read_certificate(certificate), len(rows))
    samples = [read_sample(record, layers) for record in records]
    masks = masks * len(rows) if len(masks) == 1 else masks
    for row, mask, record, sample in zip(rows, masks, records, samples, strict=True):
        x = [exact(float(v)) if seen else None for v, seen in zip(row, mask, strict=True)]
        question = record["question"]
        require(question["network"] == digest, "it is about another network")
        require(question["sensing"] == sensed, "it is about another sensing")
        require(sample[0][0] == x, "it is about another observation or mask")
        for name, value in (expected or {}).items():
            if value is not None:
                require(matches(question[name], float(value)), f"it is about another {name}")
        prove(layers, sample, boxes)
    return records


def matches(found, value):
    """Whether a number is this, or a box has all ends at it."""
    if type(found) is list:
        low, high = found
        return set(low) == {(-value).hex()} and set(high) == {value.hex()}
    return found == value.hex()


def describe(record):
    """Lines that say what is proven of a sample, and of which question."""

    def shown(text):
        return "none" if text is None else repr(float.fromhex(text))

    def pairs(ends):
        found = [f"[{shown(a)}, {shown(b)}]" for a, b in zip(*ends, strict=True)]
        return found if len(set(found)) > 1 else found[:1]

    question = record["question"]
    noise, resolution = shown(question["noise"]), shown(question["resolution"])
    box = " ".join(pairs(question["box"])) if question["box"] else "none"
    unseen, sensing = question["observation"].count(None), question["sensing"] or "none"
    exactly = "outward-rounded floats" if "subdivision" in record["proof"] else "exact arithmetic"
    yield f"verdict: {record['verdict']}, distance {shown(record['distance'])} ({exactly})"
    yield f"  noise {noise}, resolution {resolution}, box {box}"
    yield f"  network {question['network']}, sensing {sensing}, {unseen} entries unseen"
    if record["lower"]:
        yield "  latent in " + " ".join(pairs((record["lower"], record["upper"])))
