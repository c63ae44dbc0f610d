#include <array>
#include <exception>
#include <span>
#include <thread>

#include "base/throw.hpp"
#include "cairn/run.hpp"
#include "checkpoint/lease.hpp"

namespace cairn {

using namespace detail;

namespace {

/// Between two looks at a holder. The ranks that wait hear of rank 0 as often: their waits end with
/// the communicator's deadline, and watching may take longer.
constexpr std::chrono::milliseconds kPause{250};

/// What rank 0 does while the others wait.
class Taking {
 public:
  Taking(const std::filesystem::path& dir, const LeaseOptions& options)
      : dir_(dir), options_(options) {}

  /// Whether it is not done yet.
  bool goes_on() {
    if (!attempt_) {
      make_directories(dir_);
      attempt_.emplace(dir_, options_);
    }
    if (attempt_->advance()) return false;
    if (!told_) {
      fmt::print(stderr,
                 "cairn: the run directory '{}' belongs to {}; watching for {} s whether it is "
                 "alive\n",
                 dir_.string(), attempt_->watched(),
                 std::chrono::duration<double>(options_.patience).count());
      told_ = true;
    }
    std::this_thread::sleep_for(std::min(kPause, options_.patience));
    return true;
  }

  std::unique_ptr<Lease> take() { return attempt_->take(); }

 private:
  std::filesystem::path dir_;
  LeaseOptions options_;
  std::optional<LeaseAttempt> attempt_;
  bool told_ = false;
};

}  // namespace

struct RunLease::Impl {
  std::unique_ptr<Lease> lease;  // null once released
};

RunLease::RunLease(const Comm& comm, const std::filesystem::path& run_dir, LeaseOptions options)
    : impl_(std::make_unique<Impl>()) {
  Taking taking(run_dir, options);
  std::exception_ptr failure;
  std::array<std::uint64_t, 1> busy{};
  do {
    busy[0] = 0;
    if (comm.is_root()) {
      try {
        busy[0] = taking.goes_on() ? 1 : 0;
      } catch (...) {
        failure = std::current_exception();
      }
    }
    comm.all_reduce_max(std::span<std::uint64_t>(busy));
  } while (busy[0] != 0);
  agree(comm, "take the run's lease", [&] {
    if (failure) std::rethrow_exception(failure);
    if (comm.is_root()) impl_->lease = taking.take();
  });
}

RunLease::~RunLease() = default;
RunLease::RunLease(RunLease&&) noexcept = default;
RunLease& RunLease::operator=(RunLease&&) noexcept = default;

void RunLease::require(const Comm& comm) const {
  agree(comm, "run's lease", [&] {
    if (!impl_->lease) return;
    impl_->lease->look();
    if (!lost()) return;
    fail(Errc::refused,
         "another job took the lease '{}' over, or somebody removed it; this job must not write "
         "there any more: end it",
         impl_->lease->path().string());
  });
}

bool RunLease::lost() const noexcept { return impl_->lease && impl_->lease->lost(); }
void RunLease::release() noexcept { impl_->lease.reset(); }

}  // namespace cairn
