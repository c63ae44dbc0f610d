"""Writes files as PyTorch does, without PyTorch: pickles of classes that only have the right names."""

import collections
import io
import itertools
import pickle
import struct
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
    def __init__(self, kind, key, items, data):
        self.id = ("storage", named(*kind) if isinstance(kind, tuple) else named("torch", kind), key, "cpu", items)
        self.data = data


def module(name, parameters=(), modules=()):
    """What pickles as a module of torch.nn."""
    return made("torch.nn.modules", name, {"training": True, "_parameters": collections.OrderedDict(parameters),
                                           "_buffers": collections.OrderedDict(),
                                           "_modules": collections.OrderedDict(modules)})


class _Pickler(pickle.Pickler):
    def __init__(self, stream, protocol):
        super().__init__(stream, protocol)
        self.storages = {}

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        self.storages[value.id[2]] = value
        return value.id


class _LegacyPickler(_Pickler):
    """Has the source of each module's class beside it, where the class comes first."""

    def __init__(self, stream, protocol):
        super().__init__(stream, protocol)
        self.known = set()

    def persistent_id(self, value):
        if isinstance(value, type) and value.__module__.startswith("torch.nn.") and value not in self.known:
            self.known.add(value)
            return ("module", value, value.__module__ + ".py", f"class {value.__name__}:\n    pass\n")
        return super().persistent_id(value)


_number = itertools.count()


def _strides_of(shape):
    strides, step = [], 1
    for count in reversed(shape):
        strides.insert(0, step)
        step *= count
    return tuple(strides)


def tensor(shape, data, kind="FloatStorage", item=4, strides=None, first=0, key=None):
    """What pickles as a tensor over the storage `data`, in archive()."""
    storage = _Storage(kind, str(next(_number)) if key is None else key, len(data) // item, data)
    return call("torch._utils", "_rebuild_tensor_v2", storage, first, tuple(shape),
                tuple(strides or _strides_of(shape)), False, collections.OrderedDict())


def tensor_v3(shape, data, dtype, item):
    """A tensor of a type that has no storage of its own, as PyTorch 2 writes it."""
    storage = _Storage(("torch.storage", "UntypedStorage"), str(next(_number)), len(data), data)
    return call("torch._utils", "_rebuild_tensor_v3", storage, 0, tuple(shape), _strides_of(shape), False,
                collections.OrderedDict(), named("torch", dtype), {})


def archive(value, protocol=2, members=(), top="archive"):
    """The bytes of torch.save of any value."""
    stream = io.BytesIO()
    pickler = _Pickler(stream, protocol)
    pickler.dump(value)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr(f"{top}/data.pkl", stream.getvalue())
        for key, storage in pickler.storages.items():
            zipped.writestr(f"{top}/data/{key}", storage.data)
        zipped.writestr(f"{top}/version", "3\n")
        for name, data in members:
            zipped.writestr(f"{top}/{name}", data)
    return out.getvalue()


def without_crcs(content, only=b""):
    """The archive as torch.save writes it with set_crc32_options(False): 0 for the CRCs of all members, or of those
    with `only` in their names."""
    content = bytearray(content)
    for signature, crc, length, name in ((b"PK\1\2", 16, 28, 46), (b"PK\3\4", 14, 26, 30)):
        at = content.find(signature)
        while at >= 0:
            count = int.from_bytes(content[at + length:at + length + 2], "little")
            if only in content[at + name:at + name + count]:
                content[at + crc:at + crc + 4] = bytes(4)
            at = content.find(signature, at + 4)
    return bytes(content)


def legacy(value, protocol=2):
    """The bytes of torch.save of any value before PyTorch 1.6."""
    out = io.BytesIO()
    for head in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(head, out, protocol)
    pickler = _LegacyPickler(out, protocol)
    pickler.dump(value)
    pickle.dump(sorted(pickler.storages), out, protocol)
    for key in sorted(pickler.storages):
        storage = pickler.storages[key]
        out.write(struct.pack("<q", storage.id[4]) + storage.data)
    return out.getvalue()


def save(shape, data, kind="FloatStorage", item=4, strides=None, first=0):
    """The bytes of torch.save of one tensor over the storage `data`."""
    return archive(tensor(shape, data, kind, item, strides, first, key="0"))


def dcp(directory, tensors, values=None, dtype="float32", rank=None, at=None, later=None):
    """A directory of the distributed checkpoint: {name: (shape, path, [(start, count, archive)])}, and of values that
    are no tensors {name: (path, archive)}. With `rank`, what that rank alone saved, beside what others did. `at` tells where
    parts are said to be in the data file instead, by their tensors' or values' names; `later` where the first part of a
    tensor is said to be once more, behind all others."""
    data_file = f"__{rank or 0}_0.distcp"
    metadata = "torch.distributed.checkpoint.metadata"
    entries, storage, data = {}, {}, b""
    for name, (shape, _, parts) in tensors.items():
        chunks = []
        for start, count, archive in parts:
            chunks.append(made(metadata, "ChunkStorageMetadata", {"offsets": size(*start), "sizes": size(*count)}))
            index = made(metadata, "MetadataIndex", {"fqn": name, "offset": size(*start), "index": None})
            storage[index] = made("torch.distributed.checkpoint.filesystem", "_StorageInfo", {
                "relative_path": data_file, "offset": (at or {}).get(name, len(data)), "length": len(archive)})
            data += archive
        properties = made(metadata, "TensorProperties", {
            "dtype": named("torch", dtype), "layout": None, "requires_grad": False})
        entries[name] = made(metadata, "TensorStorageMetadata",
                             {"properties": properties, "size": size(*shape), "chunks": chunks})
    for name, offset in (later or {}).items():
        start, _, archive = tensors[name][2][0]
        index = made(metadata, "MetadataIndex", {"fqn": name, "offset": size(*start), "index": None})
        storage[index] = made("torch.distributed.checkpoint.filesystem", "_StorageInfo", {
            "relative_path": data_file, "offset": offset, "length": len(archive)})
    for name, (_, content) in (values or {}).items():
        index = made(metadata, "MetadataIndex", {"fqn": name, "offset": None, "index": None})
        storage[index] = made("torch.distributed.checkpoint.filesystem", "_StorageInfo", {
            "relative_path": data_file, "offset": (at or {}).get(name, len(data)), "length": len(content)})
        data += content
        entries[name] = made(metadata, "BytesStorageMetadata", {})
    paths = {name: entry[1] for name, entry in tensors.items()} | {name: path for name, (path, _) in (values or {}).items()}
    root = made(metadata, "Metadata", {
        "state_dict_metadata": entries, "planner_data": paths,
        "storage_data": storage, "version": "1.0.0"})
    directory.mkdir(exist_ok=rank is not None)
    (directory / data_file).write_bytes(data)
    (directory / (".metadata" if rank is None else f"__{rank}.metadata")).write_bytes(pickle.dumps(root, protocol=4))
