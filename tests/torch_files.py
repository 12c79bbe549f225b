"""Files of PyTorch written without it, and state dicts of random weights."""

import io
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

KINDS = {"float32": "Float", "float16": "Half", "int64": "Long", "uint8": "Byte", "bfloat16": "BFloat16"}


def literal(value):
    return pickle.dumps(value, 2)[2:-1]


def tensor(key, dtype, numel, offset, shape, strides):
    """Opcodes of torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False)."""
    storage = b"(" + literal("storage") + f"ctorch\n{KINDS[dtype]}Storage\n".encode()
    storage += literal(key) + literal("cpu") + literal(numel) + b"tQ"
    rest = literal(offset) + literal(shape) + literal(strides) + b"\x89"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def of_array(key, array):
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return tensor(str(key), str(array.dtype), array.size, 0, array.shape, strides)


def dictionary(items):
    return b"}(" + b"".join(literal(name) + value for name, value in items.items()) + b"u"


def write(path, content, storages):
    """A file of torch.save: the opcodes of its object, and the bytes of its storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def save(path, arrays):
    """A state dict, as torch.save writes it."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = dictionary({name: of_array(i, array) for i, (name, array) in enumerate(arrays.items())})
    return write(path, content, {i: array.tobytes() for i, array in enumerate(arrays.values())})


def legacy(content, storages):
    """The same in the form before PyTorch 1.6."""
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(value, file, 2)
    file.write(b"\x80\x02" + content + b".")
    pickle.dump(list(storages), file, 2)
    for array in storages.values():
        file.write(array.size.to_bytes(8, "little") + array.tobytes())
    return file.getvalue()


def random_weights(model, convs, head=None):
    """A state dict of PyTorch for a network of ours: `convs` are (our name, conv, norm), `head` is (our name, theirs).

    Features neither die out nor explode, and every norm does something.
    """
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3), jnp.uint8)))["params"]
    rng = np.random.default_rng(0)
    weights = {}
    for name, conv, norm in convs:
        height, width, inputs, outputs = shapes[name]["kernel"].shape
        scale = np.sqrt(2 / (height * width * inputs))
        weights[f"{conv}.weight"] = scale * rng.normal(size=(outputs, inputs, height, width))
        weights[f"{norm}.weight"] = rng.uniform(0.8, 1.2, outputs)
        weights[f"{norm}.bias"] = rng.normal(size=outputs) / 10
        weights[f"{norm}.running_mean"] = rng.normal(size=outputs) / 10
        weights[f"{norm}.running_var"] = rng.uniform(0.8, 1.2, outputs)
    if head:
        inputs, outputs = shapes[head[0]]["kernel"].shape
        weights[f"{head[1]}.weight"] = rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        weights[f"{head[1]}.bias"] = rng.normal(size=outputs)
    return {name: weight.astype(np.float32) for name, weight in weights.items()}
