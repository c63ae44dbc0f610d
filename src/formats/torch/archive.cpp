#include "formats/torch/archive.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::torch {
namespace {

constexpr std::uint64_t kMostPickleBytes = 512 << 20;
constexpr std::uint64_t kMostTextBytes = 64;
constexpr std::string_view kPickle = "data.pkl";
constexpr int kNewestVersion = 10;  // 3 is what all releases since 1.6 write

std::string_view folder_of(std::string_view name) { return name.substr(0, name.find('/')); }

/// What an archive without data.pkl is instead.
[[noreturn]] void refuse(const ZipTable& table) {
  for (const ZipMember& member : table.members()) {
    const std::string_view name = member.name;
    if (name.ends_with(".npy")) fail(Errc::unsupported, "it is a NumPy archive (.npz)");
    if (name.find("/.data/extern_modules") != std::string_view::npos) {
      fail(Errc::unsupported,
           "it is a package of torch.package, which is code; load it there and save its "
           "state_dict() with torch.save");
    }
  }
  fail(Errc::unsupported, "it is a zip archive, but not one of torch.save: it has no 'data.pkl'");
}

std::string text_of(const File& file, const Archive& archive, std::string_view name) {
  const ZipMember* member = archive.find(name);
  if (member == nullptr) return {};
  const std::vector<std::byte> bytes = archive.table().read_member(file, *member, kMostTextBytes);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

}  // namespace

Archive Archive::open(const File& file, std::uint64_t begin, std::uint64_t bytes) {
  Archive archive;
  archive.table_ = ZipTable::read(file, begin, bytes);
  std::vector<std::string_view> folders;
  for (const ZipMember& member : archive.table_.members()) {
    const std::string_view folder = folder_of(member.name);
    if (folder.size() + 1 + kPickle.size() == member.name.size() &&
        member.name.ends_with(kPickle)) {
      folders.push_back(folder);
    }
  }
  if (folders.empty()) refuse(archive.table_);
  if (folders.size() > 1) {
    fail(Errc::corrupt, "it holds two checkpoints, in the folders '{}' and '{}'", folders[0],
         folders[1]);
  }
  archive.top_ = folders[0];
  const bool script = archive.find("constants.pkl") != nullptr ||
                      std::any_of(archive.table_.members().begin(), archive.table_.members().end(),
                                  [&](const ZipMember& member) {
                                    return member.name.starts_with(archive.top_ + "/code/");
                                  });
  if (script) {
    fail(Errc::unsupported,
         "it is a TorchScript archive, which is a program; load it with torch.jit.load and save "
         "its state_dict() with torch.save");
  }
  archive.version_ = text_of(file, archive, "version");
  int version = 0;
  const std::string& text = archive.version_;
  std::from_chars(text.data(), text.data() + text.size(), version);
  if (version > kNewestVersion) {
    fail(Errc::unsupported, "it has version {} of PyTorch's format; up to {} are known", version,
         kNewestVersion);
  }
  archive.byteorder_ = text_of(file, archive, "byteorder");
  if (!archive.byteorder_.empty() && archive.byteorder_ != "little") {
    fail(Errc::unsupported, "its byte order is '{}'; save it again on a little-endian machine",
         archive.byteorder_);
  }
  return archive;
}

const ZipMember* Archive::find(std::string_view name) const {
  return table_.find(fmt::format("{}/{}", top_, name));
}

pickle::Graph Archive::read_pickle(const File& file) const {
  return pickle::parse(table_.read_member(file, *find(kPickle), kMostPickleBytes), kPickle);
}

void Archive::place(Storages& storages) const {
  for (Storage& storage : storages.all) {
    const ZipMember* member = find(fmt::format("data/{}", storage.key));
    if (member == nullptr) {
      fail(Errc::corrupt, "storage '{}' is not in the archive", storage.key);
    }
    if (member->method != 0) {
      fail(Errc::unsupported,
           "its tensors are compressed, so that no part of them can be read by itself; unpack "
           "the file and store it again without compression ('zip -0'), or load and save it with "
           "PyTorch");
    }
    if (member->bytes != storage.bytes) {
      fail(Errc::corrupt, "storage '{}' has {} bytes in the archive and {} in the pickle",
           storage.key, member->bytes, storage.bytes);
    }
    storage.offset = member->offset;
  }
}

std::vector<Checksum> Archive::stored(bool checked) const {
  std::vector<Checksum> places;
  for (const ZipMember& member : table_.members()) {
    if (member.method != 0 || member.crc.has_value() != checked) continue;
    places.push_back({0, member.offset, member.bytes, member.crc.value_or(0)});
  }
  std::sort(places.begin(), places.end(),
            [](const Checksum& a, const Checksum& b) { return a.offset < b.offset; });
  return places;
}

std::string Archive::missing_checksums() const {
  if (find(kPickle)->crc) return {};
  return std::string(kMissingCrcs);
}

std::string Archive::describe() const {
  Json json = {{"container", "zip"}, {"top", top_}, {"version", version_}};
  if (!byteorder_.empty()) json["byteorder"] = byteorder_;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace cairn::detail::torch
