#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cairn/source.hpp"
#include "sources/download.hpp"

namespace cairn::detail {

struct CachedFile;

struct FetchedFile {
  std::filesystem::path path;
  std::uint64_t size = 0;
  std::string sha256 = {};  ///< in hexadecimal; empty: nobody has looked
};

/// Where a source's files are on this machine.
struct Fetched {
  std::filesystem::path path;
  std::filesystem::path cache_dir = {};
  /// What other nodes must see, too, with `path` among it or around it, in `cache_dir`; empty: a
  /// path that the user gave, and that is the user's care.
  std::vector<FetchedFile> files = {};
};

/// One file of a cache. Local.
Fetched fetched_file(const CachedFile& file, const std::filesystem::path& cache_dir);

/// How a source's files are kept and got; null for those that are not fetched. Local.
const FetchOptions* fetch_options(const Source& source);

/// Gets the files of one source on a thread of its own, so that rank 0 can meet the other ranks
/// meanwhile. The thread calls neither MPI nor HDF5. `local` and `run` are looked up at once.
/// Local.
class Fetch {
 public:
  Fetch(const Source& source, const SourceSettings& settings);
  /// Calls the fetch off; a thread that does not end soon is left behind.
  ~Fetch();
  Fetch(const Fetch&) = delete;
  Fetch& operator=(const Fetch&) = delete;

  /// Whether it is over, waiting at most so long.
  bool wait(std::chrono::milliseconds most);
  FetchProgress progress() const;
  /// From its begin to its end, or so far.
  std::chrono::milliseconds took() const;
  /// Once it is over. Errors: what it failed with; timeout (it did not end in time).
  Fetched get();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cairn::detail
