#include "formats/hdf5/parallel.hpp"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "formats/hdf5/h5.hpp"
#include "mpi/watchdog.hpp"
#include "os/activity.hpp"
#include "os/fault.hpp"

namespace cairn::detail {
namespace {

using namespace h5;

Plist shared_access(const Comm& comm, const HintMap& asked) {
  const Hints hints(asked);
  Plist access(H5Pcreate(H5P_FILE_ACCESS), "make file access properties");
  check(H5Pset_fapl_mpio(access.get(), comm.raw(), hints.get()), "choose the MPI-IO driver");
  check(H5Pset_coll_metadata_write(access.get(), true), "choose collective metadata writes");
  // Collective metadata reads stay off: they are broken in HDF5 1.10.5 to 1.10.8 (HDFFV-11260).
  check(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), "set the close degree");
  return access;
}

hid_t open_shared(const std::filesystem::path& path, Direction direction, const Plist& access) {
  const hid_t file = H5Fopen(
      path.c_str(), direction == Direction::write ? H5F_ACC_RDWR : H5F_ACC_RDONLY, access.get());
  if (file < 0) fail_hdf5(Errc::io, fmt::format("cannot open '{}' in parallel", path.string()));
  return file;
}

HintMap hints_of(hid_t file) {
  void* handle = nullptr;
  check(H5Fget_vfd_handle(file, H5P_DEFAULT, &handle), "find the MPI file");
  return hints_in_force(*static_cast<MPI_File*>(handle));
}

/// What a rank does with one dataset in a transfer; without a box, it selects nothing.
struct Turn {
  std::size_t tensor = 0;
  const BoxTransfer* box = nullptr;
};

// From HDF5 1.14 on one call moves parts of many datasets, in one collective operation.
#if H5_VERSION_GE(1, 14, 0)
constexpr std::size_t kMostTurns = 1024;
#else
constexpr std::size_t kMostTurns = 1;
#endif
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;  // of a transfer, on any rank

/// Moves boxes of one open file.
class Mover {
 public:
  Mover(hid_t file, Direction direction, bool collective)
      : file_(file),
        direction_(direction),
        transfer_(H5Pcreate(H5P_DATASET_XFER), "make transfer properties") {
    check(H5Pset_dxpl_mpio(transfer_.get(),
                           collective ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT),
          "choose the transfer mode");
  }

  /// Opens the datasets that any transfer needs. Failures must be agreed on before the first
  /// transfer.
  void open(std::span<const TensorEntry> tensors, const std::vector<std::uint64_t>& rounds) {
    opened_.resize(tensors.size());
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (rounds[t] == 0) continue;
      Dataset dataset = open_dataset(file_, tensors[t].name);
      opened_[t].emplace(Opened{tensors[t].name, file_type(tensors[t].dtype), std::move(dataset)});
    }
  }

  /// One transfer; its turns are of different tensors.
  void move(std::span<const Turn> turns) {
    Transfer transfer;
    for (const Turn& turn : turns) add(transfer, turn);
    const bool write = direction_ == Direction::write;
    const herr_t status = write ? run_write(transfer) : run_read(transfer);
    const std::string& first = opened_[turns.front().tensor].value().name;
    check(status,
          fmt::format("{} tensor '{}'{}", write ? "write" : "read", first,
                      turns.size() > 1 ? fmt::format(" and {} more", turns.size() - 1) : ""),
          Errc::io);
  }

 private:
  struct Opened {
    std::string name;
    Type type;
    Dataset dataset;
  };

  /// The arguments of one call, one of each by turn.
  struct Transfer {
    std::vector<Selection> selections;
    std::vector<hid_t> datasets;
    std::vector<hid_t> types;
    std::vector<hid_t> in_memory;
    std::vector<hid_t> in_file;
    std::vector<void*> data;
  };

  void add(Transfer& transfer, const Turn& turn) {
    const Opened& opened = opened_[turn.tensor].value();
    const Selection& selection = transfer.selections.emplace_back(
        turn.box != nullptr ? select_box(opened.dataset, turn.box->box)
                            : select_nothing(opened.dataset));
    transfer.datasets.push_back(opened.dataset.get());
    transfer.types.push_back(opened.type.get());
    transfer.in_memory.push_back(selection.in_memory.get());
    transfer.in_file.push_back(selection.in_file.get());
    transfer.data.push_back(turn.box != nullptr ? turn.box->data : &unused_);
  }

#if H5_VERSION_GE(1, 14, 0)
  herr_t run_write(Transfer& t) {
    std::vector<const void*> data(t.data.begin(), t.data.end());
    return H5Dwrite_multi(t.datasets.size(), t.datasets.data(), t.types.data(), t.in_memory.data(),
                          t.in_file.data(), transfer_.get(), data.data());
  }
  herr_t run_read(Transfer& t) {
    return H5Dread_multi(t.datasets.size(), t.datasets.data(), t.types.data(), t.in_memory.data(),
                         t.in_file.data(), transfer_.get(), t.data.data());
  }
#else
  herr_t run_write(const Transfer& t) {
    return H5Dwrite(t.datasets.front(), t.types.front(), t.in_memory.front(), t.in_file.front(),
                    transfer_.get(), t.data.front());
  }
  herr_t run_read(const Transfer& t) {
    return H5Dread(t.datasets.front(), t.types.front(), t.in_memory.front(), t.in_file.front(),
                   transfer_.get(), t.data.front());
  }
#endif

  hid_t file_;
  Direction direction_;
  Plist transfer_;
  std::vector<std::optional<Opened>> opened_;
  std::byte unused_{};
};

/// The first failure of this rank; later transfers go on empty.
class Trouble {
 public:
  explicit Trouble(int rank) : rank_(rank) {}

  template <class F>
  void guard(F&& step) {
    try {
      step();
    } catch (...) {
      if (!failure_) failure_ = describe_current_exception(rank_);
    }
  }
  bool any() const { return failure_.has_value(); }
  std::optional<Failure> take() { return std::move(failure_); }

 private:
  int rank_;
  std::optional<Failure> failure_;
};

std::vector<std::uint64_t> count_by_tensor(std::size_t tensors,
                                           std::span<const BoxTransfer> boxes) {
  std::vector<std::uint64_t> counts(tensors, 0);
  for (const BoxTransfer& box : boxes) ++counts[box.tensor];
  return counts;
}

/// What a tensor adds to a transfer at most: the same on all ranks, so that they cut alike.
std::uint64_t most_bytes(const TensorEntry& tensor) { return std::min(tensor.bytes(), kMostBytes); }

/// A rank without a box of its own in a round takes part with nothing, and so does one that failed.
void move_all(Mover& mover, Watchdog& dog, Direction direction,
              std::span<const TensorEntry> tensors, std::span<const BoxTransfer> boxes,
              const std::vector<std::uint64_t>& rounds, Trouble& trouble) {
  const bool write = direction == Direction::write;
  std::vector<Turn> turns;
  std::uint64_t bytes = 0;
  const auto move = [&] {
    if (turns.empty()) return;
    if (trouble.any()) {
      for (Turn& turn : turns) turn.box = nullptr;
    }
    trouble.guard([&] {
      dog.watch(write ? "write" : "read", tensors[turns.front().tensor].name,
                [&] { mover.move(turns); });
    });
    turns.clear();
    bytes = 0;
  };
  auto next = boxes.begin();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    for (std::uint64_t round = 0; round < rounds[t]; ++round) {
      const bool mine = next != boxes.end() && next->tensor == t;
      trouble.guard([&] {
        if (mine) fault_point(write ? "move.transfer" : "load.move.transfer");
      });
      // Each of a tensor's rounds, and each transfer of filtered data, is a transfer of its own.
      const bool alone = round > 0 || tensors[t].filters != 0;
      if (alone || turns.size() == kMostTurns || bytes + most_bytes(tensors[t]) > kMostBytes) {
        move();
      }
      turns.push_back({t, mine ? &*next : nullptr});
      bytes += most_bytes(tensors[t]);
      if (alone) move();
      if (mine) ++next;
    }
  }
  move();
}

}  // namespace

HintMap transfer_boxes(const Comm& comm, const std::filesystem::path& path,
                       std::span<const TensorEntry> tensors, std::span<const BoxTransfer> boxes,
                       Direction direction, const ParallelIo& io) {
  const bool write = direction == Direction::write;
  const std::string_view step = write ? "save: move" : "load: move";
  const Session session;
  std::vector<std::uint64_t> rounds;
  std::optional<Plist> access;
  std::optional<Watchdog> dog;
  agree(comm, step, [&] {
    rounds = count_by_tensor(tensors.size(), boxes);
    access.emplace(shared_access(comm, io.hints));
    dog.emplace(comm.rank(), path.string(), io.watchdog, activity_of(path));
  });
  // In collective mode each tensor takes as many transfers as the rank with the most needs.
  if (io.collective) comm.all_reduce_max(std::span<std::uint64_t>(rounds));

  // From here on HDF5 communicates, so that agree() is not for it: a rank keeps its failure until
  // all ranks settle. After one inside the library its close may never return; a file that is open
  // stays so, unused, and HDF5 closes it in MPI_Finalize.
  Trouble trouble(comm.rank());
  const auto settle = [&] {
    if (auto first = comm.first_failure(trouble.take(), step)) {
      watch_finalize(comm.rank(), path.string(), io.watchdog, activity_of(path));
      throw_agreed(step, *first);
    }
  };
  hid_t file = -1;
  trouble.guard([&] {
    // For ranks that never come: after an error here the others would wait in the open.
    fault_point(write ? "move.enter" : "load.move.enter");
    dog->watch("open", {}, [&] { file = open_shared(path, direction, *access); });
  });
  settle();
  HintMap in_force;
  {
    std::unique_ptr<Mover> mover;
    trouble.guard([&] {
      in_force = hints_of(file);
      mover = std::make_unique<Mover>(file, direction, io.collective);
      dog->watch("open datasets", {}, [&] { mover->open(tensors, rounds); });
      fault_point(write ? "move.open" : "load.move.open");
    });
    settle();
    move_all(*mover, *dog, direction, tensors, boxes, rounds, trouble);
    trouble.guard([&] { fault_point(write ? "move.end" : "load.move.end"); });
  }
  settle();
  trouble.guard([&] {
    dog->watch("close", {}, [&] {
      check(H5Fclose(file), fmt::format("cannot close '{}'", path.string()), Errc::io);
    });
  });
  settle();
  return in_force;
}

}  // namespace cairn::detail
