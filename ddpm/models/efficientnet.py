"""EfficientNet-Lite0, a network that tells ImageNet's classes at a twentieth of Inception's cost; for inference alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ddpm.models.rgb import three_channels
from ddpm.shapes import Images, Pixels

SIZE = 224
STAGES = (  # blocks, features, kernel, stride of the first block, expansion
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)


class EfficientNetLite0(nn.Module):
    """Bytes of any size, or floats in 0..255, to {'pool': [batch, 1280], 'logits': [batch, 1000]}.

    The image is resized to 224 x 224 and becomes (x - 127) / 128. Batch norms are folded into the convolutions.

    Tan and Le 2019, without squeeze and excitation, and with ReLU6.
    """

    @nn.compact
    def __call__(self, pixels: Pixels | Images) -> dict[str, Float[Array, "batch dims"]]:
        def conv(x, features, kernel, stride, name, groups=1):
            return nn.Conv(
                features,
                (kernel, kernel),
                stride,
                feature_group_count=groups,
                precision=jax.lax.Precision.HIGHEST,
                name=name,
            )(x)

        x = jax.image.resize(three_channels(pixels), (len(pixels), SIZE, SIZE, 3), "bilinear")
        x = (x - 127) / 128
        x = nn.relu6(conv(x, 32, 3, 2, "stem"))
        i = 0
        for count, features, kernel, first_stride, expansion in STAGES:
            for stride in (first_stride, *[1] * (count - 1)):
                wide, h = expansion * x.shape[-1], x
                if expansion > 1:
                    h = nn.relu6(conv(h, wide, 1, 1, f"block_{i}.expand"))
                h = nn.relu6(conv(h, wide, kernel, stride, f"block_{i}.depthwise", groups=wide))
                h = conv(h, features, 1, 1, f"block_{i}.project")
                x = x + h if x.shape == h.shape else h
                i += 1
        x = nn.relu6(conv(x, 1280, 1, 1, "head"))
        pool = jnp.mean(x, axis=(1, 2))
        return {"pool": pool, "logits": nn.Dense(1000, precision=jax.lax.Precision.HIGHEST, name="classes")(pool)}
