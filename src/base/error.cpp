#include "cairn/error.hpp"

namespace cairn {

// Out of line, so that the type information has one home and can be caught across the library's
// boundary.
Error::~Error() = default;

std::string_view to_string(Errc code) noexcept {
  switch (code) {
    case Errc::usage:
      return "usage";
    case Errc::mismatch:
      return "mismatch";
    case Errc::not_found:
      return "not_found";
    case Errc::corrupt:
      return "corrupt";
    case Errc::unsupported:
      return "unsupported";
    case Errc::unsafe:
      return "unsafe";
    case Errc::io:
      return "io";
    case Errc::refused:
      return "refused";
    case Errc::timeout:
      return "timeout";
    case Errc::internal:
      return "internal";
  }
  return "internal";
}

}  // namespace cairn
