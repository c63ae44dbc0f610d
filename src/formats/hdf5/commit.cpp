#include "formats/hdf5/commit.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "cairn/version.hpp"

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTrailerMagic[8] = {'C', 'A', 'I', 'R', 'N', 'E', 'N', 'D'};

struct TrailerRecord {
  char magic[8];
  std::uint32_t format_version;
  std::uint32_t reserved;
  std::uint64_t commit_offset;
  std::uint64_t commit_bytes;
  std::uint64_t commit_digest;
  std::uint64_t file_bytes;
  std::uint64_t reserved_too;
  std::uint64_t digest;  // of the 56 bytes before
};
static_assert(sizeof(TrailerRecord) == kTrailerBytes);

std::uint64_t own_digest(const TrailerRecord& record) {
  return digest_of(std::as_bytes(std::span(&record, 1)).first(offsetof(TrailerRecord, digest)));
}

void check_version(std::uint64_t version) {
  if (version > kFormatVersion) {
    fail(Errc::unsupported,
         "the container has format version {}; this cairn {} reads up to {}: use a "
         "newer cairn",
         version, CAIRN_VERSION_STRING, kFormatVersion);
  }
  if (version == 0) fail(Errc::corrupt, "the container has format version 0");
}

Json span_json(const Span& span, std::uint64_t digest) {
  return {{"offset", span.offset}, {"bytes", span.bytes}, {"xxh3_64", to_hex(digest)}};
}

std::uint64_t parse_hex(const Json& json) {
  return std::stoull(json.get<std::string>(), nullptr, 16);
}

/// A whole number from 0 to `most`; the JSON library alone would round and wrap.
std::uint64_t parse_count(const Json& json, std::string_view key,
                          std::uint64_t most = std::numeric_limits<std::uint64_t>::max()) {
  const Json& value = json.at(key);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > most) {
    fail(Errc::corrupt, "the commit record gives {} for '{}'", value.dump(), key);
  }
  return value.get<std::uint64_t>();
}

Span parse_span(const Json& json) {
  return {parse_count(json, "offset"), parse_count(json, "bytes")};
}

CommitRecord parse(const Json& json) {
  if (json.at("format").get<std::string>() != "cairn") {
    fail(Errc::unsupported, "the commit record is of format '{}', not cairn",
         json.at("format").get<std::string>());
  }
  const std::uint64_t version = parse_count(json, "format_version");
  check_version(version);
  CommitRecord record;
  record.info.format_version = static_cast<unsigned>(version);
  record.info.library_version = json.at("library_version").get<std::string>();
  record.info.step = parse_count(json, "step");
  record.info.structure = json.at("structure").get<std::string>();
  record.info.writers =
      static_cast<int>(parse_count(json, "writers", std::numeric_limits<int>::max()));
  record.info.committed_at = json.at("committed_at").get<std::string>();
  record.hdf5_bytes = parse_count(json.at("hdf5"), "bytes");
  record.metadata_digest = parse_hex(json.at("hdf5").at("xxh3_64"));
  record.index = parse_span(json.at("index"));
  record.index_digest = parse_hex(json.at("index").at("xxh3_64"));
  for (const auto& [name, slot] : json.at("documents").items()) {
    record.documents[name] = {parse_span(slot), parse_hex(slot.at("xxh3_64"))};
  }
  return record;
}

/// A small commit record must not make the same bytes many documents.
void check_apart(const CommitRecord& commit) {
  std::vector<Span> spans{commit.index};
  for (const auto& [name, slot] : commit.documents) spans.push_back(slot.span);
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.offset < b.offset; });
  for (std::size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].offset - spans[i - 1].offset < spans[i - 1].bytes) {
      fail(Errc::corrupt, "two parts of its metadata lie at the same place");
    }
  }
}

}  // namespace

std::vector<std::byte> encode_commit(const CommitRecord& record) {
  Json json;
  json["format"] = "cairn";
  json["format_version"] = record.info.format_version;
  json["library_version"] = record.info.library_version;
  json["step"] = record.info.step;
  json["structure"] = record.info.structure;
  json["writers"] = record.info.writers;
  json["committed_at"] = record.info.committed_at;
  json["hdf5"] = span_json({0, record.hdf5_bytes}, record.metadata_digest);
  json["index"] = span_json(record.index, record.index_digest);
  json["documents"] = Json::object();
  for (const auto& [name, slot] : record.documents) {
    json["documents"][name] = span_json(slot.span, slot.digest);
  }
  const std::string text = json.dump();
  if (text.size() >= kCommitBytes) {
    fail(Errc::usage, "{} documents do not fit the commit record of {} bytes; save fewer",
         record.documents.size(), kCommitBytes);
  }
  std::vector<std::byte> bytes(kCommitBytes);
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

void check_commit_room(const std::map<std::string, std::uint64_t>& rooms) {
  constexpr Span kLongest{std::numeric_limits<std::uint64_t>::max(),
                          std::numeric_limits<std::uint64_t>::max()};
  CommitRecord longest;
  longest.info.format_version = kFormatVersion;
  longest.info.library_version = CAIRN_VERSION_STRING;
  longest.info.step = kLongest.bytes;
  longest.info.structure = to_hex(0);
  longest.info.writers = std::numeric_limits<int>::max();
  longest.info.committed_at = "2000-01-01T00:00:00Z";
  longest.hdf5_bytes = kLongest.bytes;
  longest.index = kLongest;
  for (const auto& [name, room] : rooms) longest.documents[name] = {kLongest, 0};
  encode_commit(longest);
}

CommitRecord decode_commit(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const std::size_t length = strnlen(text, bytes.size());
  try {
    CommitRecord commit = parse(Json::parse(text, text + length));
    check_apart(commit);
    return commit;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(Errc::corrupt, "the commit record can't be read ({})", error.what());
  }
}

std::array<std::byte, kTrailerBytes> encode_trailer(const Trailer& trailer) {
  TrailerRecord record{};
  std::memcpy(record.magic, kTrailerMagic, sizeof(kTrailerMagic));
  record.format_version = kFormatVersion;
  record.commit_offset = trailer.commit_offset;
  record.commit_bytes = kCommitBytes;
  record.commit_digest = trailer.commit_digest;
  record.file_bytes = trailer.file_bytes;
  record.digest = own_digest(record);
  std::array<std::byte, kTrailerBytes> bytes{};
  std::memcpy(bytes.data(), &record, sizeof(record));
  return bytes;
}

bool is_trailer(std::span<const std::byte> bytes) {
  return bytes.size() >= sizeof(kTrailerMagic) &&
         std::memcmp(bytes.data(), kTrailerMagic, sizeof(kTrailerMagic)) == 0;
}

std::optional<Trailer> decode_trailer(std::span<const std::byte> bytes) {
  TrailerRecord record;
  if (bytes.size() != sizeof(record) || !is_trailer(bytes)) return std::nullopt;
  std::memcpy(&record, bytes.data(), sizeof(record));
  if (own_digest(record) != record.digest)
    fail(Errc::corrupt, "the container's trailer is damaged");
  check_version(record.format_version);
  if (record.commit_bytes != kCommitBytes)
    fail(Errc::corrupt, "the container's trailer is inconsistent");
  return Trailer{record.commit_offset, record.commit_digest, record.file_bytes};
}

}  // namespace cairn::detail
