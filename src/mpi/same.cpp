#include "mpi/same.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace cairn::detail {

void require_same(const Comm& comm, std::string_view step, std::span<const Argument> arguments,
                  std::span<std::uint64_t> maxima) {
  // One maximum over values and complements gives maximum and minimum, so equality, in one call.
  std::vector<std::uint64_t> votes;
  for (const Argument& argument : arguments) {
    votes.push_back(argument.hash);
    votes.push_back(~argument.hash);
  }
  votes.insert(votes.end(), maxima.begin(), maxima.end());
  comm.all_reduce_max(std::span<std::uint64_t>(votes));
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (votes[2 * i] == ~votes[2 * i + 1]) continue;
    throw Error(
        Errc::mismatch,
        fmt::format("{}: the ranks disagree on the {}; call it with the same arguments on every "
                    "rank",
                    step, arguments[i].subject),
        0);
  }
  std::copy(votes.begin() + static_cast<std::ptrdiff_t>(2 * arguments.size()), votes.end(),
            maxima.begin());
}

}  // namespace cairn::detail
