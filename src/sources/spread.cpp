#include "sources/spread.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "mpi/nodes.hpp"
#include "mpi/time_limit.hpp"
#include "os/file.hpp"
#include "sources/cache.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBlockBytes = 8 << 20;
constexpr std::string_view kStep = "bring the file to other nodes";

struct Item {
  fs::path path;
  std::uint64_t size = 0;
  std::string sha256 = {};
};

std::string hash_of(const Comm& comm, const fs::path& path) {
  const FetchLimits limits{.timeout = comm.deadline(),
                           .deadline = std::chrono::steady_clock::now() + comm.deadline()};
  return sha256_of_file(path, limits, {});
}

bool has_size(const Item& item) {
  std::error_code error;
  return fs::file_size(item.path, error) == item.size && !error;
}

std::vector<Item> items_of(const std::vector<fs::path>& files) {
  std::vector<Item> items;
  for (const fs::path& file : files) items.push_back({file, File::open_read(file).size()});
  return items;
}

/// Rank 0's items on all ranks. Collective.
void share(const Comm& comm, std::vector<Item>& items) {
  auto json = nlohmann::json::array();
  for (const Item& item : items) json.push_back({item.path.string(), item.size, item.sha256});
  auto bytes = nlohmann::json::to_cbor(json);
  std::vector<std::byte> raw(bytes.size());
  std::transform(bytes.begin(), bytes.end(), raw.begin(), [](auto b) { return std::byte(b); });
  comm.broadcast(raw);
  if (comm.is_root()) return;
  bytes.assign(reinterpret_cast<const std::uint8_t*>(raw.data()),
               reinterpret_cast<const std::uint8_t*>(raw.data()) + raw.size());
  items.clear();
  for (const auto& item : nlohmann::json::from_cbor(bytes)) {
    items.push_back({item[0].get<std::string>(), item[1], item[2]});
  }
}

/// Whether this rank sees a file that rank 0 makes just now in the directory. Collective.
bool sees_directory_of_root(const Comm& comm, const fs::path& dir) {
  std::string sight;
  agree(comm, kStep, [&] {
    if (!comm.is_root()) return;
    sight = (dir / names::sight_file(random_nonce())).string();
    File::create(sight).close();
  });
  comm.broadcast(sight);
  std::error_code ignored;
  const bool sees = fs::exists(sight, ignored);
  comm.all_equal(0);  // everybody has looked
  if (comm.is_root()) remove_quietly(sight);
  return sees;
}

/// One file from rank 0 to all members; `keeps` says which of them want it. Never throws but for
/// the communicator's own reasons: what fails goes to `failure`, and the blocks go on.
void send(const Comm& members, const Item& item, bool keeps, std::exception_ptr& failure) {
  const auto attempt = [&failure](auto&& step) {
    if (failure) return;
    try {
      step();
    } catch (...) {
      failure = std::current_exception();
    }
  };
  const fs::path partial = item.path.parent_path() / names::cache_partial(random_nonce());
  std::optional<File> file;
  attempt([&] {
    if (members.is_root()) {
      file = File::open_read(item.path);
    } else if (keeps) {
      make_directories(item.path.parent_path());
      file = File::create(partial);
      file->reserve(item.size);
    }
  });
  std::uint64_t at = 0;
  while (at < item.size) {
    std::vector<std::byte> block;
    if (members.is_root()) {
      attempt([&] {
        check_time_limit();
        block.resize(std::min(kBlockBytes, item.size - at));
        file->read_at(at, block);
      });
      if (failure) block.clear();
    }
    members.broadcast(block);
    if (block.empty()) break;
    attempt([&] {
      if (!members.is_root() && keeps) file->write_at(at, block, "spread.write");
    });
    at += block.size();
  }
  if (members.is_root() || !keeps) return;
  attempt([&] {
    if (at != item.size) fail(Errc::io, "rank 0 could not read '{}'", item.path.string());
    file->sync();
    file->close();
    if (hash_of(members, partial) != item.sha256) {
      fail(Errc::corrupt, "'{}' is another file than on rank 0 after it was sent",
           item.path.string());
    }
    replace_file(partial, item.path);
    sync_directory(item.path.parent_path());
  });
  if (failure) remove_quietly(partial);
}

/// Gives the items to the leaders. Collective.
void send_to(const Comm& comm, const std::vector<Item>& items, bool leads) {
  std::exception_ptr failure;
  auto members = with_members(comm, leads);
  if (members) {
    for (const Item& item : items) {
      bool keeps = false;
      try {
        keeps = leads && !(has_size(item) && hash_of(comm, item.path) == item.sha256);
      } catch (const Error&) {
        keeps = true;  // what cannot be read is fetched again
      }
      std::array<std::uint64_t, 1> wanted{keeps ? 1U : 0U};
      members->all_reduce_max(std::span<std::uint64_t>(wanted));
      if (wanted[0] != 0) send(*members, item, keeps, failure);
    }
    members->close();
  }
  agree(comm, kStep, [&] {
    if (failure) std::rethrow_exception(failure);
  });
}

}  // namespace

void spread_files(const Comm& comm, std::vector<fs::path> files_of_root) {
  std::vector<Item> items;
  agree(comm, kStep, [&] {
    if (comm.is_root()) items = items_of(files_of_root);
  });
  share(comm, items);
  if (items.empty()) return;
  bool has = sees_directory_of_root(comm, items.front().path.parent_path());
  bool hashed = false;
  // Ranks of one node need not see the same directory either: then it takes another round.
  for (int round = 0; round <= comm.size(); ++round) {
    std::array<std::uint64_t, 1> lacking{has ? 0U : 1U};
    comm.all_reduce_max(std::span<std::uint64_t>(lacking));
    if (lacking[0] == 0) return;
    if (!std::exchange(hashed, true)) {
      agree(comm, kStep, [&] {
        if (!comm.is_root()) return;
        for (Item& item : items) item.sha256 = hash_of(comm, item.path);
      });
      share(comm, items);
    }
    send_to(comm, items, is_first_on_node(comm, !has));
    has = has || std::all_of(items.begin(), items.end(), has_size);
  }
  agree(comm, kStep, [&] {
    if (!has) {
      fail(Errc::io,
           "'{}' is not there after it was brought; give checkpoint.source.cache_dir a "
           "directory that all ranks of a node see",
           items.front().path.string());
    }
  });
}

}  // namespace cairn::detail
