"""Inner loops of products and triangular solves, written for vector registers.

Numba's own loops reach two thirds of what the processor can do in a Gram matrix, since they end
in sums across a register, and far less in the short loops of a factor. Here a tile of up to TILE
registers stays in place while it is worked on. The compiler splits registers where the
processor's are shorter. The order of every sum is fixed by the arguments alone. Nothing is
checked: the arrays must hold the tile.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import register_jitable

# Its declared type counts the typing context as an argument of the caller.
intrinsic: Any = _intrinsic

# Bytes of the longest register, and registers of a tile.
_REGISTER = 64
TILE = 8

_INT = ir.IntType(32)
# A product may be fused with the sum that it goes into.
_FUSE = ("contract",)


@register_jitable
def lanes(itemsize: int) -> int:
    """Entries of a register."""
    return _REGISTER // itemsize


class _Writer:
    """Writes vector instructions on one array, whose place in memory is ``data``."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.data = context.make_array(kind)(context, builder, array).data
        self.bytes = kind.dtype.bitwidth // 8
        self.width = lanes(self.bytes)
        self.vector = ir.VectorType(context.get_data_type(kind.dtype), self.width)

    def at(self, *terms: Any) -> Any:
        """The address of entry ``sum(terms)``."""
        place = self.data
        for term in terms:
            place = self.builder.gep(place, [term])
        return place

    def load(self, place: Any) -> Any:
        """The register that starts at an address."""
        line = self.builder.bitcast(place, self.vector.as_pointer())
        return self.builder.load(line, align=self.bytes)

    def store(self, value: Any, place: Any) -> None:
        """Write a register."""
        line = self.builder.bitcast(place, self.vector.as_pointer())
        self.builder.store(value, line, align=self.bytes)

    def spread(self, place: Any) -> Any:
        """A register full of one entry."""
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, self.builder.load(place), ir.Constant(_INT, 0))
        lane = ir.Constant(ir.VectorType(_INT, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, nothing, lane)

    def fused(self, combine: Any, total: Any, left: Any, right: Any) -> Any:
        """``total + left * right``, or minus."""
        return combine(total, self.builder.fmul(left, right, flags=_FUSE), flags=_FUSE)

    def sums(self, count: int) -> list[Any]:
        """Registers of zeros that a loop may add to."""
        places = [cgutils.alloca_once(self.builder, self.vector) for _ in range(count)]
        for place in places:
            self.builder.store(ir.Constant(self.vector, [0.0] * self.width), place)
        return places

    def add(self, place: Any, left: Any, right: Any) -> None:
        """Add a product to one of these."""
        builder = self.builder
        builder.store(self.fused(builder.fadd, builder.load(place), left, right), place)


def _constant(like: Any, value: int) -> Any:
    return ir.Constant(like.type, value)


def _tile(subtract: bool) -> Any:
    @intrinsic
    def tile(typing, x, stride, count, left, right, out, out_stride, at):  # type: ignore[no-untyped-def]
        signature = types.void(x, *[types.intp] * 4, out, *[types.intp] * 2)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            x, stride, count, left, right, out, out_stride, at = arguments
            source = _Writer(context, builder, signature.args[0], x)
            target = _Writer(context, builder, signature.args[5], out)
            sums = source.sums(TILE)
            with cgutils.for_range(builder, count) as loop:
                row = builder.mul(loop.index, stride)
                entries = source.load(source.at(row, left))
                for c, place in enumerate(sums):
                    factor = source.spread(source.at(row, right, _constant(row, c)))
                    source.add(place, entries, factor)
            combine = builder.fsub if subtract else builder.fadd
            target.width = source.width
            target.vector = ir.VectorType(ir.DoubleType(), source.width)
            for c, place in enumerate(sums):
                line = target.at(at, builder.mul(_constant(at, c), out_stride))
                total = builder.load(place)
                if source.bytes != target.bytes:
                    total = builder.fpext(total, target.vector)
                target.store(combine(target.load(line), total), line)
            return context.get_dummy_value()

        return signature, generate

    return tile


# out[c, r] +-= sum_i x[i, left + r] x[i, right + c] for all lanes r and TILE c's. Arguments: the
# array x, its row length, how many of its rows count, left, right, the float64 array out, its row
# length, and the place of the tile's first entry.
add_tile = _tile(subtract=False)
subtract_tile = _tile(subtract=True)


@intrinsic
def factor_tile(typing, upper, stride, first, diagonal, least, inverse):  # type: ignore[no-untyped-def]
    """``T = U' U`` in place for the diagonal tile from ``first`` on; what is below stays junk.

    Writes the inverse pivots: 0 where a pivot is at most ``least`` times its entry of ``diagonal``.
    """
    signature = types.void(upper, *[types.intp] * 2, diagonal, types.float64, inverse)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        upper, stride, first, diagonal, least, inverse = arguments
        array, before, pivots = (
            _Writer(context, builder, signature.args[place], value)
            for place, value in ((0, upper), (3, diagonal), (5, inverse))
        )
        root = builder.module.declare_intrinsic("llvm.sqrt", [ir.DoubleType()])
        one, zero = (ir.Constant(ir.DoubleType(), value) for value in (1.0, 0.0))
        lines = [
            array.at(builder.mul(builder.add(first, _constant(first, r)), stride), first)
            for r in range(TILE)
        ]
        tile = [array.load(line) for line in lines]
        for p in range(TILE):
            place = _constant(first, p)
            pivot = builder.extract_element(tile[p], ir.Constant(_INT, p))
            enough = builder.fmul(least, builder.load(before.at(first, place)))
            good = builder.fcmp_ordered(">", pivot, enough)
            found = builder.fdiv(one, builder.call(root, [pivot]))
            found = builder.select(good, found, zero)
            builder.store(found, pivots.at(first, place))
            tile[p] = builder.fmul(tile[p], array.spread(pivots.at(first, place)))
            for r in range(p + 1, TILE):
                lane = ir.Constant(ir.VectorType(_INT, array.width), [r] * array.width)
                factor = builder.shuffle_vector(tile[p], tile[p], lane)
                tile[r] = array.fused(builder.fsub, tile[r], factor, tile[p])
        for line, total in zip(lines, tile, strict=True):
            array.store(total, line)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def eliminate_tile(typing, upper, stride, first, column, inverse):  # type: ignore[no-untyped-def]
    """``T <- U'^-1 T`` for the TILE rows from ``first`` on and the lanes from ``column`` on.

    U is the diagonal tile of these rows, already factored; ``inverse`` holds inverse pivots.
    """
    signature = types.void(upper, types.intp, types.intp, types.intp, inverse)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        upper, stride, first, column, inverse = arguments
        array = _Writer(context, builder, signature.args[0], upper)
        pivots = _Writer(context, builder, signature.args[4], inverse)
        starts = [builder.mul(builder.add(first, _constant(first, r)), stride) for r in range(TILE)]
        lines = [array.at(start, column) for start in starts]
        tile: list[Any] = []
        for p in range(TILE):
            total = array.load(lines[p])
            for t in range(p):
                factor = array.spread(array.at(starts[t], first, _constant(first, p)))
                total = array.fused(builder.fsub, total, factor, tile[t])
            pivot = pivots.spread(pivots.at(first, _constant(first, p)))
            tile.append(builder.fmul(total, pivot))
        for line, total in zip(lines, tile, strict=True):
            array.store(total, line)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transposed_tile_times(typing, x, stride, count, left, v, out):  # type: ignore[no-untyped-def]
    """``out[r] = sum_i x[i, left + r] v[i]`` over the first ``count`` rows, for all lanes r."""
    signature = types.void(x, types.intp, types.intp, types.intp, v, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, stride, count, left, v, out = arguments
        array, vector, target = (
            _Writer(context, builder, signature.args[place], value)
            for place, value in ((0, x), (4, v), (5, out))
        )
        # Four sums at a time, for an addition takes as long as four can be started.
        sums = array.sums(4)
        quarter = builder.sdiv(count, _constant(count, 4))
        with cgutils.for_range(builder, quarter) as loop:
            i = builder.mul(loop.index, _constant(count, 4))
            for c, place in enumerate(sums):
                row = builder.add(i, _constant(i, c))
                entries = array.load(array.at(builder.mul(row, stride), left))
                array.add(place, entries, vector.spread(vector.at(row)))
        parts = [builder.load(place) for place in sums]
        total = builder.fadd(builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3]))
        target.store(total, target.data)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def tile_times(typing, x, stride, row, first, last, v, out):  # type: ignore[no-untyped-def]
    """``out[r] = sum_b x[row + r, b] v[b]`` for TILE rows, b from ``first`` to before ``last``.

    Whole registers only: ``last - first`` counts as many as fit.
    """
    signature = types.void(x, *[types.intp] * 4, v, out)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        x, stride, row, first, last, v, out = arguments
        array, vector, target = (
            _Writer(context, builder, signature.args[place], value)
            for place, value in ((0, x), (5, v), (6, out))
        )
        sums = array.sums(TILE)
        count = builder.sdiv(builder.sub(last, first), _constant(first, array.width))
        starts = [builder.mul(builder.add(row, _constant(row, r)), stride) for r in range(TILE)]
        with cgutils.for_range(builder, count) as loop:
            b = builder.add(first, builder.mul(loop.index, _constant(first, array.width)))
            factors = vector.load(vector.at(b))
            for start, place in zip(starts, sums, strict=True):
                array.add(place, array.load(array.at(start, b)), factors)
        for r, place in enumerate(sums):
            entries = [
                builder.extract_element(builder.load(place), ir.Constant(_INT, lane))
                for lane in range(array.width)
            ]
            while len(entries) > 1:
                half = len(entries) // 2
                pairs = zip(entries[:half], entries[half:], strict=True)
                entries = [builder.fadd(a, b) for a, b in pairs]
            builder.store(entries[0], target.at(_constant(row, r)))
        return context.get_dummy_value()

    return signature, generate
