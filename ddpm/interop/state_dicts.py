"""Networks in single .pt files: whose they are is told by their names of weights."""

import pathlib

from ddpm.errors import InputError
from ddpm.interop import dit_file, openai, weight_file
from ddpm.interop.foreign import Foreign


def read(file: pathlib.Path, trained_with: str, has_noise: bool) -> Foreign:
    """The network in a file of `torch.save`.

    Args:
      trained_with, has_noise: as of `openai.foreign`.
    Raises:
      InputError: the file cannot be read, is of no network that is known here, or does not say all that is needed.
    """
    arrays = weight_file.read(file)
    if openai.is_one(arrays):
        return openai.foreign(arrays, file, trained_with, has_noise)
    if dit_file.is_one(arrays):
        said = openai.said_by(trained_with, ("num_heads",))
        return dit_file.foreign(arrays, file, openai.integer(said, "num_heads", 0))
    some = ", ".join(map(repr, sorted(arrays)[:3]))
    raise InputError(
        f"{file} holds {some}, ...: no network of improved or guided diffusion, which has {openai.TIME!r} and "
        f"{openai.FIRST!r}, and none of DiT, which has {dit_file.TIME!r} and {dit_file.PATCH!r}."
    )
