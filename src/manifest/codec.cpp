#include "manifest/codec.hpp"

namespace cairn::detail {

void put_shape(ByteWriter& out, const Shape& shape) {
  out.put(static_cast<std::uint32_t>(shape.size()));
  out.put_raw(std::as_bytes(std::span(shape.data(), shape.size())));
}

namespace {

Shape get_shape(ByteReader& in) {
  const auto dims = in.get<std::uint32_t>();
  const auto raw = in.get_raw(std::uint64_t{dims} * sizeof(std::uint64_t));
  Shape shape(dims);
  if (dims != 0) std::memcpy(shape.data(), raw.data(), raw.size());
  return shape;
}

}  // namespace

void put_box(ByteWriter& out, const Box& box) {
  put_shape(out, box.start);
  put_shape(out, box.count);
}

Box get_box(ByteReader& in) {
  Box box;
  box.start = get_shape(in);
  box.count = get_shape(in);
  return box;
}

std::vector<std::uint64_t> get_numbers(ByteReader& in, std::uint64_t count) {
  if (count > in.left() / sizeof(std::uint64_t))
    fail(Errc::corrupt, "a list of numbers ends early");
  const auto raw = in.get_raw(count * sizeof(std::uint64_t));
  std::vector<std::uint64_t> numbers(count);
  if (count != 0) std::memcpy(numbers.data(), raw.data(), raw.size());
  return numbers;
}

void put_extent(ByteWriter& out, const Extent& extent) {
  out.put(extent.file);
  out.put(extent.offset);
  out.put(static_cast<std::uint8_t>(extent.flat));
  put_box(out, extent.box);
  out.put(static_cast<std::uint8_t>(extent.digest.has_value()));
  out.put(extent.digest.value_or(0));
  out.put(extent.writer);
}

Extent get_extent(ByteReader& in) {
  Extent extent;
  extent.file = in.get<std::uint32_t>();
  extent.offset = in.get<std::uint64_t>();
  extent.flat = in.get<std::uint8_t>() != 0;
  extent.box = get_box(in);
  const bool has_digest = in.get<std::uint8_t>() != 0;
  const auto digest = in.get<std::uint64_t>();
  if (has_digest) extent.digest = digest;
  extent.writer = in.get<std::int32_t>();
  return extent;
}

void put_tensor_head(ByteWriter& out, const TensorEntry& tensor) {
  out.put_text(tensor.name);
  out.put(static_cast<std::uint8_t>(tensor.dtype));
  put_shape(out, tensor.shape);
  out.put(static_cast<std::uint8_t>(tensor.placement));
  out.put(static_cast<std::uint8_t>(tensor.layout));
  out.put(tensor.offset);
  put_shape(out, tensor.chunk);
  put_shape(out, tensor.strides);
  out.put(tensor.filters);
}

TensorEntry get_tensor_head(ByteReader& in) {
  TensorEntry tensor;
  tensor.name = in.get_text();
  tensor.dtype = dtype_from_code(in.get<std::uint8_t>());
  tensor.shape = get_shape(in);
  tensor.placement = static_cast<Placement::Kind>(in.get<std::uint8_t>());
  tensor.layout = static_cast<Layout>(in.get<std::uint8_t>());
  tensor.offset = in.get<std::uint64_t>();
  tensor.chunk = get_shape(in);
  tensor.strides = get_shape(in);
  tensor.filters = in.get<std::uint8_t>();
  return tensor;
}

namespace {

void put_path(ByteWriter& out, const std::vector<PathKey>& path) {
  out.put(static_cast<std::uint64_t>(path.size()));
  for (const PathKey& key : path) {
    out.put(static_cast<std::uint8_t>(key.index()));
    if (const auto* text = std::get_if<std::string>(&key)) {
      out.put_text(*text);
    } else {
      out.put(std::get<std::int64_t>(key));
    }
  }
}

std::vector<PathKey> get_path(ByteReader& in) {
  std::vector<PathKey> path;
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    if (in.get<std::uint8_t>() == 0) {
      path.emplace_back(in.get_text());
    } else {
      path.emplace_back(in.get<std::int64_t>());
    }
  }
  return path;
}

void put_tensor(ByteWriter& out, const TensorEntry& tensor) {
  put_tensor_head(out, tensor);
  out.put(static_cast<std::uint64_t>(tensor.extents.size()));
  for (const Extent& extent : tensor.extents) put_extent(out, extent);
  out.put(static_cast<std::uint64_t>(tensor.stored.size()));
  for (const StoredChunk& chunk : tensor.stored) out.put(chunk);
  out.put(static_cast<std::uint8_t>(tensor.statistics.has_value()));
  if (tensor.statistics) out.put(*tensor.statistics);
  put_path(out, tensor.path);
}

TensorEntry get_tensor(ByteReader& in) {
  TensorEntry tensor = get_tensor_head(in);
  const auto extents = in.get<std::uint64_t>();
  for (std::uint64_t i = 0; i < extents; ++i) tensor.extents.push_back(get_extent(in));
  const auto chunks = in.get<std::uint64_t>();
  for (std::uint64_t i = 0; i < chunks; ++i) tensor.stored.push_back(in.get<StoredChunk>());
  if (in.get<std::uint8_t>() != 0) tensor.statistics = in.get<Statistics>();
  tensor.path = get_path(in);
  return tensor;
}

}  // namespace

std::vector<std::byte> encode(const Manifest& manifest) {
  ByteWriter out;
  out.put_text(manifest.format);
  out.put(static_cast<std::uint64_t>(manifest.files.size()));
  for (const FileEntry& file : manifest.files) {
    out.put_text(file.path.string());
    out.put(file.bytes);
    out.put(static_cast<std::uint8_t>(file.access));
    out.put(file.fingerprint);
  }
  const CommitInfo& commit = manifest.commit;
  out.put(static_cast<std::uint32_t>(commit.format_version));
  out.put_text(commit.library_version);
  out.put(commit.step);
  out.put_text(commit.structure);
  out.put(static_cast<std::int32_t>(commit.writers));
  out.put_text(commit.committed_at);
  out.put(static_cast<std::uint64_t>(manifest.tensors.size()));
  for (const TensorEntry& tensor : manifest.tensors) put_tensor(out, tensor);
  out.put(static_cast<std::uint64_t>(manifest.checksums.size()));
  for (const Checksum& checksum : manifest.checksums) {
    out.put(checksum.file);
    out.put(checksum.offset);
    out.put(checksum.bytes);
    out.put(checksum.crc32);
  }
  out.put(static_cast<std::uint64_t>(manifest.documents.size()));
  for (const auto& [name, text] : manifest.documents) {
    out.put_text(name);
    out.put_text(text);
  }
  out.put(static_cast<std::uint64_t>(manifest.warnings.size()));
  for (const std::string& warning : manifest.warnings) out.put_text(warning);
  return out.take();
}

Manifest decode_manifest(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "the manifest sent by rank 0");
  Manifest manifest;
  manifest.format = in.get_text();
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    FileEntry file;
    file.path = in.get_text();
    file.bytes = in.get<std::uint64_t>();
    file.access = static_cast<Access>(in.get<std::uint8_t>());
    file.fingerprint = in.get<std::uint64_t>();
    manifest.files.push_back(std::move(file));
  }
  CommitInfo& commit = manifest.commit;
  commit.format_version = in.get<std::uint32_t>();
  commit.library_version = in.get_text();
  commit.step = in.get<std::uint64_t>();
  commit.structure = in.get_text();
  commit.writers = in.get<std::int32_t>();
  commit.committed_at = in.get_text();
  const auto tensors = in.get<std::uint64_t>();
  for (std::uint64_t i = 0; i < tensors; ++i) manifest.tensors.push_back(get_tensor(in));
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    Checksum& checksum = manifest.checksums.emplace_back();
    checksum.file = in.get<std::uint32_t>();
    checksum.offset = in.get<std::uint64_t>();
    checksum.bytes = in.get<std::uint64_t>();
    checksum.crc32 = in.get<std::uint32_t>();
  }
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    std::string name = in.get_text();
    manifest.documents[std::move(name)] = in.get_text();
  }
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) manifest.warnings.push_back(in.get_text());
  return manifest;
}

void put_pieces(ByteWriter& out, std::span<const TensorView> pieces) {
  out.put(static_cast<std::uint64_t>(pieces.size()));
  for (const TensorView& piece : pieces) {
    out.put_text(piece.name);
    out.put(static_cast<std::uint8_t>(piece.dtype));
    out.put(static_cast<std::uint8_t>(piece.placement.kind));
    put_shape(out, piece.placement.global_shape);
    put_box(out, piece.placement.box);
  }
}

std::vector<TensorView> get_pieces(ByteReader& in) {
  std::vector<TensorView> pieces;
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    TensorView piece;
    piece.name = in.get_text();
    piece.dtype = dtype_from_code(in.get<std::uint8_t>());
    piece.placement.kind = static_cast<Placement::Kind>(in.get<std::uint8_t>());
    piece.placement.global_shape = get_shape(in);
    piece.placement.box = get_box(in);
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

}  // namespace cairn::detail
