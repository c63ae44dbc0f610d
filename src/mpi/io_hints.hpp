#pragma once

#include <mpi.h>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail {

using HintMap = std::map<std::string, std::string>;

/// Hints as MPI takes them. Lifetime: may end as soon as a file is open.
class Hints {
 public:
  /// Local. Errors: usage for keys and values that MPI cannot take.
  explicit Hints(const HintMap& hints);
  ~Hints();
  Hints(const Hints&) = delete;
  Hints& operator=(const Hints&) = delete;
  MPI_Info get() const noexcept { return info_; }

 private:
  MPI_Info info_ = MPI_INFO_NULL;
};

/// What MPI says that it uses for an open file. Local. Errors: io.
HintMap hints_in_force(MPI_File file);

/// One sentence for each hint that has no effect: MPI gives it another value or drops it, or
/// `component` (as io_component() says) does not know it. Open MPI before 6 gives back whatever it
/// was given, so that only the list of known names tells a misspelt one.
std::vector<std::string> hints_without_effect(const HintMap& asked, const HintMap& in_force,
                                              std::string_view component);

}  // namespace cairn::detail
