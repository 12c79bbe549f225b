"""Convolutions of 3 x 3 by Winograd's minimal filtering F(4 x 4, 3 x 3): 36 products for 16 pixels where sums take 144.

    Y = A^T [(G g G^T) . (B^T d B)] A

of each tile d of 6 x 6 pixels and kernel g: 4 x 4 pixels Y. With its sum over channels, . is 36 products of matrices.

Lavin and Gray 2016, Eq. 8; the matrices multiply polynomials by their values at POINTS, after Toom and Cook.
"""

import contextlib
import contextvars
import functools
import math
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

TILE, SIDE = 4, 6  # pixels of Y, of d
LAYOUT = ("NHWC", "HWIO", "NHWC")
POINTS = 0.5**0.5 * np.array([0, 1, -1, 2, -2])  # and infinity: with half the rounding of 0, 1, -1, 2, -2


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T, G and B^T: a correlation of 6 with 3 numbers is A^T [(G g) . (B^T d)]."""
    others = [np.delete(POINTS, i) for i in range(len(POINTS))]
    scale = [np.prod(point - other) for point, other in zip(POINTS, others, strict=True)]
    infinity = np.eye(SIDE)[-1:]
    A = np.vstack([np.vander(POINTS, TILE, increasing=True), infinity[:, -TILE:]])
    G = np.vstack([np.vander(POINTS, 3, increasing=True) / np.array(scale)[:, None], infinity[:, -3:]])
    B = [np.append(np.poly(other)[::-1], 0) for other in others] + [np.poly(POINTS)[::-1]]
    return A.T, G, np.array(B)


AT, G, BT = matrices()


def convolve(x, kernel, strides, padding, *, dimension_numbers, **options):
    """`jax.lax.conv_general_dilated` for `flax.linen.Conv`: by tiles where that is faster, which it is on a CPU."""
    plain = dict(lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1, precision=None)
    if (
        (options.items() <= plain.items() and strides == (1, 1) and padding in ("SAME", [(1, 1), (1, 1)]))
        and dimension_numbers in (LAYOUT, jax.lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT))
        and is_faster(x, kernel)
    ):
        return winograd.bind(x, kernel, transposed=False)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimension_numbers, **options)


def is_faster(x, kernel) -> bool:
    """On a CPU, with pixels to pay for the kernel's transform, channels for x's; DDPM_WINOGRAD=0 at tracing says never.

    Not on several devices: the gradient would be summed over them before it is transformed, 36 numbers where there are 9.
    """
    if os.environ.get("DDPM_WINOGRAD") == "0" or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    if kernel.shape[:2] != (3, 3) or not x.dtype == kernel.dtype == jnp.float32:
        return False
    if not all(isinstance(n, int) for n in x.shape[:3]):
        return False
    pixels, channels = math.prod(x.shape[:3]), min(kernel.shape[2:])
    if _FIXED.get():
        return pixels >= 256 and channels >= 32
    return pixels * channels >= 2**18 and channels >= 64  # fewer are a little faster too, for a tenth more memory


_FIXED = contextvars.ContextVar("kernels are fixed", default=False)


@contextlib.contextmanager
def kernels_fixed(fixed: bool) -> Iterator[None]:
    """Tells the layers that are traced in a block whether kernels stay: of those XLA computes the transform once, before a loop."""
    before = _FIXED.set(fixed)
    try:
        yield
    finally:
        _FIXED.reset(before)


def combine(matrix: np.ndarray, parts: list) -> list:
    """sum_j matrix[i, j] parts[j] for each i, written out: one pass over memory."""
    return [sum(float(c) * part for c, part in zip(row, parts, strict=True) if abs(c) > 1e-12) for row in matrix]


def on_both_sides(matrix: np.ndarray, d):
    """matrix d matrix^T, over the first two axes."""
    both = jnp.asarray(np.kron(matrix, matrix), d.dtype) @ d.reshape(matrix.shape[1] ** 2, math.prod(d.shape[2:]))
    return both.reshape(*2 * matrix.shape[:1], *d.shape[2:])


def of_tiles(matrix: np.ndarray, image):
    """matrix d matrix^T of each tile d: (i, j, batch, rows, columns, channels).

    Tiles of 4 x 4 pixels lie side by side; those of 6 x 6 reach a pixel beyond them on all sides.
    """
    size = matrix.shape[1]
    counts = [-(-side // TILE) for side in image.shape[1:3]]
    edge = (size - TILE) // 2
    ends = [(edge, count * TILE - side + edge) for count, side in zip(counts, image.shape[1:3], strict=True)]
    image = jnp.pad(image, ((0, 0), *ends, (0, 0)))

    def pixels(x, axis, count):
        return [jax.lax.slice_in_dim(x, j, j + TILE * (count - 1) + 1, TILE, axis) for j in range(size)]

    rows = jnp.stack(combine(matrix, pixels(image, 1, counts[0])))
    rows = jax.lax.optimization_barrier(rows)  # else a compiler computes them anew for every column
    return jnp.stack(combine(matrix, pixels(rows, 3, counts[1])), 1)


@functools.partial(jax.jit, static_argnames="transposed")
def convolution(x, kernel, *, transposed: bool):
    """sum_ij x[h + i - 1, w + j - 1] kernel[i, j], with 0 outside of x; transposed, what that makes of a gradient x."""
    d = of_tiles(BT, x)
    _, _, batch, rows, columns, channels = d.shape
    g = on_both_sides(G[:, ::-1] if transposed else G, kernel)
    d = d.reshape(SIDE**2, batch * rows * columns, channels)
    d, g = jax.lax.optimization_barrier((d, g.reshape(SIDE**2, *kernel.shape[2:])))
    products = jnp.einsum("itf,icf->itc" if transposed else "itc,icf->itf", d, g)
    features = products.shape[2]
    y = on_both_sides(AT, products.reshape(SIDE, SIDE, batch, rows, columns, features)).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, rows * TILE, columns * TILE, features)[:, : x.shape[1], : x.shape[2]]


@jax.jit
def gradient_of_kernel(x, g):
    """G^T [(A g A^T) . (B^T d B)] G, summed over tiles, of the convolution's x and the gradient g of its result."""
    d, g = (tiles.reshape(SIDE**2, -1, tiles.shape[-1]) for tiles in (of_tiles(BT, x), of_tiles(AT.T, g)))
    products = jnp.einsum("itc,itf->icf", *jax.lax.optimization_barrier((d, g)))
    return on_both_sides(G.T, products.reshape(SIDE, SIDE, *products.shape[1:]))


def of_x(g, x, kernel, *, transposed):
    """The gradient of x for that of the result, g: a convolution with the kernel the other way round."""
    return winograd.bind(g, kernel, transposed=not transposed)


def of_kernel(g, x, kernel, *, transposed):
    """The gradient of the kernel for that of the result, g."""
    return gradient_of_kernel(g, x) if transposed else gradient_of_kernel(x, g)


def batched(arguments, axes, *, transposed):
    """Batches of one kernel are one larger batch."""
    x, kernel = arguments
    if axes[1] is not None:
        return jax.vmap(functools.partial(convolution, transposed=transposed), axes)(x, kernel), 0
    x = jnp.moveaxis(x, axes[0], 0)
    y = winograd.bind(x.reshape(math.prod(x.shape[:2]), *x.shape[2:]), kernel, transposed=transposed)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def shape(x, kernel, *, transposed):
    """Shape and type of the result."""
    return jax.core.ShapedArray((*x.shape[:3], kernel.shape[2 if transposed else 3]), x.dtype)


winograd = Primitive("winograd")
winograd.def_impl(convolution)
winograd.def_abstract_eval(shape)
mlir.register_lowering(winograd, mlir.lower_fun(convolution, multiple_results=False))
ad.defbilinear(winograd, of_x, of_kernel)
batching.primitive_batchers[winograd] = batched
