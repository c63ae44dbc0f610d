"""Writes files as PyTorch does, without PyTorch: pickles of classes that only have the right names."""

import collections
import io
import pickle
import sys
import types
import zipfile


def named(module, name):
    """Something that pickles as the class `module.name`."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    home = sys.modules[module]
    if not hasattr(home, name):
        setattr(home, name, type(name, (), {"__module__": module, "__qualname__": name}))
    return getattr(home, name)


def call(module, name, *args):
    """What pickles as the call of a function."""
    function = named(module, name)
    return type("Call", (), {"__reduce__": lambda self: (function, args)})()


def made(module, name, state):
    """What pickles as an object of a class, with its state."""
    new = named(module, name)()
    new.__dict__.update(state)
    return new


def size(*numbers):
    return call("torch", "Size", tuple(numbers))


class _Storage:
    def __init__(self, kind, key, items):
        self.id = ("storage", named("torch", kind), key, "cpu", items)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, _Storage) else None


def save(shape, data, kind="FloatStorage", item=4, strides=None, first=0):
    """The bytes of torch.save of one tensor over the storage `data`."""
    if strides is None:
        strides, step = [], 1
        for count in reversed(shape):
            strides.insert(0, step)
            step *= count
    tensor = call("torch._utils", "_rebuild_tensor_v2", _Storage(kind, "0", len(data) // item), first, tuple(shape),
                  tuple(strides), False, collections.OrderedDict())
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(tensor)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def dcp(directory, tensors, values=(), dtype="float32"):
    """A directory of the distributed checkpoint: {name: (shape, path, [(start, count, archive)])}."""
    metadata = "torch.distributed.checkpoint.metadata"
    entries, storage, data = {}, {}, b""
    for name, (shape, _, parts) in tensors.items():
        chunks = []
        for start, count, archive in parts:
            chunks.append(made(metadata, "ChunkStorageMetadata", {"offsets": size(*start), "sizes": size(*count)}))
            index = made(metadata, "MetadataIndex", {"fqn": name, "offset": size(*start), "index": None})
            storage[index] = made("torch.distributed.checkpoint.filesystem", "_StorageInfo", {
                "relative_path": "__0_0.distcp", "offset": len(data), "length": len(archive)})
            data += archive
        properties = made(metadata, "TensorProperties", {
            "dtype": named("torch", dtype), "layout": None, "requires_grad": False})
        entries[name] = made(metadata, "TensorStorageMetadata",
                             {"properties": properties, "size": size(*shape), "chunks": chunks})
    for name in values:
        entries[name] = made(metadata, "BytesStorageMetadata", {})
    root = made(metadata, "Metadata", {
        "state_dict_metadata": entries, "planner_data": {name: path for name, (_, path, _) in tensors.items()},
        "storage_data": storage, "version": "1.0.0"})
    directory.mkdir()
    (directory / "__0_0.distcp").write_bytes(data)
    (directory / ".metadata").write_bytes(pickle.dumps(root, protocol=4))
