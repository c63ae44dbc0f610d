#include "support/torch_file.hpp"

#include <span>

#include "base/bytes.hpp"
#include "base/crc32.hpp"

namespace cairn::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(detail::ByteWriter& out) {
  const std::vector<std::byte> bytes = out.take();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class... T>
void put(detail::ByteWriter& out, T... values) {
  (out.put(values), ...);
}

using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;

}  // namespace

std::string zip_of(const std::vector<ZipPart>& parts, bool zip64_end) {
  detail::ByteWriter out;
  detail::ByteWriter table;
  for (const ZipPart& part : parts) {
    const auto offset = static_cast<U32>(out.size());
    const U32 crc = detail::crc32_update(0, bytes_of(part.data));
    const auto size = static_cast<U32>(part.data.size());
    const auto name = static_cast<U16>(part.name.size());
    const U16 flags = part.described ? 8 : 0;
    const U32 told = part.described ? 0 : size;
    put(out, U32{0x04034b50}, U16{20}, flags, U16{0}, U32{0}, part.described ? U32{0} : crc, told,
        told, name, U16{0});
    out.put_raw(bytes_of(part.name));
    out.put_raw(bytes_of(part.data));
    if (part.described) put(out, U32{0x08074b50}, crc, size, size);
    const U32 shown = part.long_sizes ? ~U32{0} : size;
    put(table, U32{0x02014b50}, U16{20}, U16{20}, flags, U16{0}, U32{0}, crc, shown, shown, name,
        U16{static_cast<U16>(part.long_sizes ? 20 : 0)}, U16{0}, U16{0}, U16{0}, U32{0}, offset);
    table.put_raw(bytes_of(part.name));
    if (part.long_sizes) put(table, U16{1}, U16{16}, U64{size}, U64{size});
  }
  const U64 start = out.size();
  const std::vector<std::byte> rows = table.take();
  out.put_raw(rows);
  const auto count = static_cast<U16>(parts.size());
  if (zip64_end) {
    const U64 end = out.size();
    put(out, U32{0x06064b50}, U64{44}, U16{45}, U16{45}, U32{0}, U32{0}, U64{count}, U64{count},
        U64{rows.size()}, start);
    put(out, U32{0x07064b50}, U32{0}, end, U32{1});
  }
  put(out, U32{0x06054b50}, U16{0}, U16{0}, zip64_end ? U16{0xffff} : count,
      zip64_end ? U16{0xffff} : count, zip64_end ? ~U32{0} : static_cast<U32>(rows.size()),
      zip64_end ? ~U32{0} : static_cast<U32>(start), U16{0});
  return text_of(out);
}

Pickler& Pickler::text(std::string_view value) {
  detail::ByteWriter out;
  put(out, 'X', static_cast<U32>(value.size()));
  out.put_raw(bytes_of(value));
  return raw(text_of(out));
}

Pickler& Pickler::integer(std::int64_t value) {
  detail::ByteWriter out;
  put(out, '\x8a', '\x08', value);
  return raw(text_of(out));
}

Pickler& Pickler::integers(const std::vector<std::int64_t>& values) {
  raw("(");
  for (const std::int64_t value : values) integer(value);
  return raw("t");
}

Pickler& Pickler::global(std::string_view module, std::string_view name) {
  return raw("c").raw(module).raw("\n").raw(name).raw("\n");
}

Pickler& Pickler::tensor(std::string_view storage_type, std::string_view key,
                         std::int64_t storage_elements, std::int64_t offset,
                         const std::vector<std::int64_t>& shape,
                         const std::vector<std::int64_t>& strides) {
  global("torch._utils", "_rebuild_tensor_v2").raw("((").text("storage");
  global("torch", storage_type).text(key).text("cpu").integer(storage_elements).raw("tQ");
  integer(offset).integers(shape).integers(strides).raw("\x89");
  return global("collections", "OrderedDict").raw(")RtR");
}

}  // namespace cairn::test
