#include "manifest/codec.hpp"

namespace cairn::detail {
namespace {

void put_extent(ByteWriter& out, const Extent& extent) {
  out.put(extent.file);
  out.put(extent.offset);
  out.put(static_cast<std::uint8_t>(extent.flat));
  out.put_list(extent.box.start);
  out.put_list(extent.box.count);
  out.put_list(extent.strides);
  out.put(static_cast<std::uint8_t>(extent.digest.has_value()));
  out.put(extent.digest.value_or(0));
  out.put(extent.writer);
}

Extent get_extent(ByteReader& in) {
  Extent extent;
  extent.file = in.get<std::uint32_t>();
  extent.offset = in.get<std::uint64_t>();
  extent.flat = in.get<std::uint8_t>() != 0;
  extent.box.start = in.get_list();
  extent.box.count = in.get_list();
  extent.strides = in.get_list();
  const bool has_digest = in.get<std::uint8_t>() != 0;
  const auto digest = in.get<std::uint64_t>();
  if (has_digest) extent.digest = digest;
  extent.writer = in.get<std::int32_t>();
  return extent;
}

void put_tensor(ByteWriter& out, const TensorEntry& tensor) {
  out.put_text(tensor.name);
  out.put(static_cast<std::uint8_t>(tensor.dtype));
  out.put_list(tensor.shape);
  out.put(static_cast<std::uint8_t>(tensor.placement));
  out.put(static_cast<std::uint8_t>(tensor.layout));
  out.put(tensor.offset);
  out.put_list(tensor.chunk);
  out.put(static_cast<std::uint64_t>(tensor.extents.size()));
  for (const Extent& extent : tensor.extents) put_extent(out, extent);
}

TensorEntry get_tensor(ByteReader& in) {
  TensorEntry tensor;
  tensor.name = in.get_text();
  tensor.dtype = dtype_from_code(in.get<std::uint8_t>());
  tensor.shape = in.get_list();
  tensor.placement = static_cast<Placement::Kind>(in.get<std::uint8_t>());
  tensor.layout = static_cast<Layout>(in.get<std::uint8_t>());
  tensor.offset = in.get<std::uint64_t>();
  tensor.chunk = in.get_list();
  const auto extents = in.get<std::uint64_t>();
  for (std::uint64_t i = 0; i < extents; ++i) tensor.extents.push_back(get_extent(in));
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
    out.put_list(piece.placement.global_shape);
    out.put_list(piece.placement.box.start);
    out.put_list(piece.placement.box.count);
  }
}

std::vector<TensorView> get_pieces(ByteReader& in) {
  std::vector<TensorView> pieces;
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    TensorView piece;
    piece.name = in.get_text();
    piece.dtype = dtype_from_code(in.get<std::uint8_t>());
    piece.placement.kind = static_cast<Placement::Kind>(in.get<std::uint8_t>());
    piece.placement.global_shape = in.get_list();
    piece.placement.box.start = in.get_list();
    piece.placement.box.count = in.get_list();
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

}  // namespace cairn::detail
