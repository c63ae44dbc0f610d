#include "sources/spread.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "manifest/cache_names.hpp"
#include "mpi/nodes.hpp"
#include "mpi/time_limit.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "os/small_file.hpp"
#include "sources/cache.hpp"
#include "sources/file_hash.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kBlockBytes = 8 << 20;
// So that the last sync of a large file, for which all ranks wait, has little left to write.
constexpr std::uint64_t kSyncBytes = 256 << 20;
constexpr std::chrono::milliseconds kPulse{250};
constexpr std::string_view kStep = "bring the file to other nodes";

/// Whether any rank says so. Collective.
bool any_of_ranks(const Comm& comm, bool mine) {
  std::array<std::uint64_t, 1> any{mine ? 1U : 0U};
  comm.all_reduce_max(std::span<std::uint64_t>(any));
  return any[0] != 0;
}

/// Hashes a file, for as long as one meeting of the ranks may wait for the other; whether more is
/// to come. Local. Errors: timeout, and those of FileHash.
bool hash_for_a_while(FileHash& hash) {
  const auto until = Clock::now() + kPulse;
  bool goes_on = true;
  while (goes_on && Clock::now() < until) {
    check_time_limit();
    goes_on = hash.goes_on();
  }
  return goes_on;
}

/// Calls `step` on all ranks until none of them says that more is to come, or one throws: then all
/// throw that. Collective; `step` is Local.
template <class Step>
void in_steps(const Comm& comm, Step&& step) {
  bool any = true;
  while (any) {
    bool mine = false;
    agree(comm, kStep, [&] { mine = step(); });
    any = any_of_ranks(comm, mine);
  }
}

/// Rank 0's files and cache on all ranks. Collective.
void share(const Comm& comm, Fetched& fetched) {
  std::vector<std::byte> raw;
  agree(comm, kStep, [&] {
    if (!comm.is_root()) return;
    auto json = nlohmann::json::array({fetched.cache_dir.string()});
    for (const auto& file : fetched.files) {
      json.push_back({file.path.string(), file.size, file.sha256});
    }
    const auto bytes = nlohmann::json::to_cbor(json);
    raw.resize(bytes.size());
    std::transform(bytes.begin(), bytes.end(), raw.begin(), [](auto b) { return std::byte(b); });
  });
  comm.broadcast(raw);
  agree(comm, kStep, [&] {
    if (comm.is_root()) return;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(raw.data());
    const auto json = nlohmann::json::from_cbor(bytes, bytes + raw.size());
    fetched.cache_dir = json[0].get<std::string>();
    fetched.files.clear();
    for (std::size_t i = 1; i < json.size(); ++i) {
      fetched.files.push_back({json[i][0].get<std::string>(), json[i][1], json[i][2]});
    }
  });
}

/// A file that is there for others to see, as long as the object lives. Several ranks may have it
/// at once: all that see the cache of one.
class Sight {
 public:
  explicit Sight(fs::path path) : path_(std::move(path)) {
    make_directories(path_.parent_path());
    touch_file(path_);
  }
  ~Sight() { remove_quietly(path_); }
  Sight(const Sight&) = delete;
  Sight& operator=(const Sight&) = delete;

 private:
  fs::path path_;
};

/// Whether this rank sees the cache of one that has the files: those make a file there just now.
/// Collective.
bool sees_files(const Comm& comm, const fs::path& cache_dir, bool has) {
  std::string path;
  agree(comm, kStep, [&] {
    if (comm.is_root()) path = names::sight_file(cache_dir, random_nonce()).string();
  });
  comm.broadcast(path);
  std::optional<Sight> sight;
  agree(comm, kStep, [&] {
    if (has) sight.emplace(path);
  });
  std::error_code ignored;
  const bool sees = has || fs::exists(path, ignored);
  comm.all_equal(0);  // everybody has looked
  return sees;
}

/// The digests that rank 0 does not know, of files that a registered function made. Collective.
void hash_unknown(const Comm& comm, std::vector<FetchedFile>& files) {
  for (FetchedFile& file : files) {
    if (!file.sha256.empty()) continue;
    std::optional<FileHash> hash;
    in_steps(comm, [&] {
      if (!comm.is_root()) return false;
      if (!hash) hash.emplace(file.path);
      if (hash_for_a_while(*hash)) return true;
      file.sha256 = hash->hex();
      return false;
    });
  }
}

/// Whether this rank looks for the file and has none, or another one, there. What cannot be read is
/// brought again. Collective.
bool lacks(const Comm& comm, const FetchedFile& file, bool looks) {
  std::optional<FileHash> hash;
  bool lacks = looks;
  in_steps(comm, [&] {
    if (!looks) return false;
    try {
      if (!hash) hash.emplace(file.path);
      if (hash->size() != file.size) return false;
      if (hash_for_a_while(*hash)) return true;
      lacks = hash->hex() != file.sha256;
    } catch (const Error& error) {
      if (error.code() == Errc::timeout) throw;
    }
    return false;
  });
  return lacks;
}

/// A file on its way to a node.
class Arrival {
 public:
  Arrival(const fs::path& cache_dir, const FetchedFile& file) : file_(file) {
    make_directories(names::cache_partials(cache_dir));
    make_directories(file.path.parent_path());
    partial_ = names::cache_partial(cache_dir, random_nonce());
    out_.emplace(File::create(partial_));
    out_->reserve(file.size);
  }
  ~Arrival() {
    if (!arrived_) remove_quietly(partial_);
  }
  Arrival(const Arrival&) = delete;
  Arrival& operator=(const Arrival&) = delete;

  void write(std::uint64_t at, std::span<const std::byte> block) {
    out_->write_at(at, block, "spread.write");
    hash_.update(block);
    if (at / kSyncBytes != (at + block.size()) / kSyncBytes) out_->sync();
  }

  void finish() {
    if (to_hex(hash_.finish()) != file_.sha256) {
      fail(Errc::corrupt, "'{}' is another file than on rank 0 after it was sent",
           file_.path.string());
    }
    out_->sync();
    out_->close();
    fault_point("spread.rename");
    replace_file(partial_, file_.path);
    arrived_ = true;
    sync_directory(file_.path.parent_path());
  }

 private:
  const FetchedFile& file_;
  fs::path partial_;
  std::optional<File> out_;
  Sha256 hash_;
  bool arrived_ = false;
};

/// One file from rank 0 to those that lack it. `members` are rank 0 and all of these, at least: the
/// others hear between the blocks that it goes on. Collective on `comm`.
void send(const Comm& comm, const Comm* members, const Fetched& fetched, const FetchedFile& file,
          bool lacking) {
  std::optional<File> in;
  std::optional<Arrival> out;
  agree(comm, kStep, [&] {
    if (comm.is_root()) in = File::open_read(file.path);
    if (lacking) out.emplace(fetched.cache_dir, file);
  });
  std::vector<std::byte> block;
  for (std::uint64_t at = 0; at < file.size; at += kBlockBytes) {
    agree(comm, kStep, [&] {
      check_time_limit();
      if (!in) return;
      block.resize(std::min(kBlockBytes, file.size - at));
      in->read_at(at, block);
    });
    if (members != nullptr) members->broadcast(block);
    agree(comm, kStep, [&] {
      if (out) out->write(at, block);
    });
  }
  agree(comm, kStep, [&] {
    if (out) out->finish();
  });
}

/// After an error that all ranks have; where they do not, `comm` cannot be used any more, and the
/// members are left as they are. Collective.
void close_if_all_are_here(const Comm& comm, std::optional<Comm>& members) {
  try {
    comm.all_equal(0);
    if (members) members->close();
  } catch (const Error&) {  // the first error says more
  }
}

/// Gives the files to the leaders. Collective.
void send_to(const Comm& comm, const Fetched& fetched, bool leads) {
  auto members = with_members(comm, leads);
  try {
    agree(comm, kStep, [&] {
      if (leads) remove_old_partials(fetched.cache_dir);
    });
    for (const FetchedFile& file : fetched.files) {
      const bool lacking = lacks(comm, file, leads);
      if (any_of_ranks(comm, lacking)) {
        send(comm, members ? &*members : nullptr, fetched, file, lacking);
      }
    }
  } catch (...) {
    close_if_all_are_here(comm, members);
    throw;
  }
  if (members) members->close();
}

}  // namespace

void spread_files(const Comm& comm, Fetched fetched) {
  if (comm.size() == 1) return;
  share(comm, fetched);
  if (fetched.files.empty()) return;
  bool has = sees_files(comm, fetched.cache_dir, comm.is_root());
  if (!any_of_ranks(comm, !has)) return;
  hash_unknown(comm, fetched.files);
  share(comm, fetched);
  // Ranks of one node need not see the same cache either: then it takes another round. Each brings
  // the files to one rank at least.
  while (any_of_ranks(comm, !has)) {
    const bool leads = is_first_on_node(comm, !has);
    send_to(comm, fetched, leads);
    has = sees_files(comm, fetched.cache_dir, has || leads);
  }
}

}  // namespace cairn::detail
