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

/// Moves boxes of one open file; with no box, takes part in a collective transfer with nothing
/// selected.
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

  void move(std::size_t tensor, const BoxTransfer* box) {
    const Opened& opened = opened_[tensor].value();
    const std::string& what = opened.name;
    if (box == nullptr) {
      Space in_file(H5Dget_space(opened.dataset.get()), what);
      check(H5Sselect_none(in_file.get()), what);
      const Space nothing(H5Scopy(in_file.get()), what);
      std::byte unused{};
      return run(opened, nothing.get(), in_file.get(), &unused);
    }
    const Selection selection = select_box(opened.dataset, box->box);
    run(opened, selection.in_memory.get(), selection.in_file.get(), box->data);
  }

 private:
  struct Opened {
    std::string name;
    Type type;
    Dataset dataset;
  };

  void run(const Opened& opened, hid_t in_memory, hid_t in_file, std::byte* data) {
    const bool write = direction_ == Direction::write;
    const hid_t dataset = opened.dataset.get();
    const hid_t type = opened.type.get();
    const herr_t status = write ? H5Dwrite(dataset, type, in_memory, in_file, transfer_.get(), data)
                                : H5Dread(dataset, type, in_memory, in_file, transfer_.get(), data);
    check(status, fmt::format("{} tensor '{}'", write ? "write" : "read", opened.name), Errc::io);
  }

  hid_t file_;
  Direction direction_;
  Plist transfer_;
  std::vector<std::optional<Opened>> opened_;
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

/// A rank without a box of its own in a round takes part with nothing, and so does one that failed.
void move_all(Mover& mover, Watchdog& dog, Direction direction,
              std::span<const TensorEntry> tensors, std::span<const BoxTransfer> boxes,
              const std::vector<std::uint64_t>& rounds, Trouble& trouble) {
  const bool write = direction == Direction::write;
  auto next = boxes.begin();
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    for (std::uint64_t round = 0; round < rounds[t]; ++round) {
      const bool mine = next != boxes.end() && next->tensor == t;
      trouble.guard([&] {
        if (mine) fault_point(write ? "move.transfer" : "load.move.transfer");
      });
      trouble.guard([&] {
        dog.watch(write ? "write" : "read", tensors[t].name,
                  [&] { mover.move(t, mine && !trouble.any() ? &*next : nullptr); });
      });
      if (mine) ++next;
    }
  }
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

  hid_t file = -1;
  agree(comm, step, [&] {
    fault_point(write ? "move.enter" : "load.move.enter");
    dog->watch("open", {}, [&] { file = open_shared(path, direction, *access); });
  });
  HintMap in_force;
  Trouble trouble(comm.rank());
  {
    std::unique_ptr<Mover> mover;
    agree(comm, step, [&] {
      in_force = hints_of(file);
      mover = std::make_unique<Mover>(file, direction, io.collective);
      dog->watch("open datasets", {}, [&] { mover->open(tensors, rounds); });
      fault_point(write ? "move.open" : "load.move.open");
    });
    move_all(*mover, *dog, direction, tensors, boxes, rounds, trouble);
    trouble.guard([&] { fault_point(write ? "move.end" : "load.move.end"); });
  }
  // After a failure inside the library its close may never return; the file stays open, unused.
  if (auto first = comm.first_failure(trouble.take(), step)) {
    watch_finalize(comm.rank(), path.string(), io.watchdog, activity_of(path));
    throw_agreed(step, *first);
  }
  agree(comm, step, [&] {
    dog->watch("close", {}, [&] {
      check(H5Fclose(file), fmt::format("cannot close '{}'", path.string()), Errc::io);
    });
  });
  return in_force;
}

}  // namespace cairn::detail
