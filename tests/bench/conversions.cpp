#include "conversions.hpp"

#include "checkpoint/convert.hpp"
#include "os/file.hpp"
#include "timing.hpp"

namespace cairn::bench {
namespace {

namespace fs = std::filesystem;

/// What cp and an fsync of the copy do. Local.
void copy_durably(const fs::path& from, const fs::path& to) {
  fs::copy_file(from, to, fs::copy_options::overwrite_existing);
  detail::File::open_write(to).sync();
}

}  // namespace

Times run_conversions(const Comm& comm, const Options& options, const Manifest& source,
                      const fs::path& target, const fs::path& raw) {
  Times times;
  Series limit{"cp + fsync", {}};
  for (int round = 0; round <= options.repeat; ++round) {
    double ours = 0;
    const auto convert = [&] {
      ours = timed(comm, [&] {
        detail::convert_checkpoint(comm, open_checkpoint(comm, source.path()), target, {});
      });
    };
    if (round == 0) times.first_peak_bytes = peak_of(comm, convert);
    if (round == 1) times.peak_bytes = peak_of(comm, convert);
    if (round > 1) convert();
    remove_on_root(comm, target);
    const double copied = timed(comm, [&] {
      agree(comm, "copy", [&] {
        if (comm.is_root()) copy_durably(source.path(), raw);
      });
    });
    remove_on_root(comm, raw);
    if (round == 0) continue;
    times.ours.push_back(ours);
    limit.seconds.push_back(copied);
  }
  times.limits.push_back(std::move(limit));
  return times;
}

}  // namespace cairn::bench
