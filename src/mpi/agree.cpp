#include <fmt/format.h>

#include <new>
#include <system_error>

#include "cairn/comm.hpp"

namespace cairn {

Failure describe_current_exception(int rank) {
  try {
    throw;
  } catch (const Error& error) {
    // An error that was agreed already keeps its origin and its text.
    const bool agreed = error.rank() != Error::kLocal;
    return {error.code(), agreed ? error.rank() : rank, error.what(), agreed};
  } catch (const std::bad_alloc&) {
    return {Errc::io, rank, "out of memory"};
  } catch (const std::system_error& error) {  // of std::filesystem, as a rule
    const bool absent = error.code() == std::errc::no_such_file_or_directory;
    return {absent ? Errc::not_found : Errc::io, rank, error.what()};
  } catch (const std::exception& error) {
    return {Errc::internal, rank, error.what()};
  } catch (...) {
    return {Errc::internal, rank, "an exception of unknown type"};
  }
}

void throw_agreed(std::string_view step, const Failure& failure) {
  if (failure.agreed) throw Error(failure.code, failure.text, failure.rank);
  throw Error(failure.code, fmt::format("{}: rank {}: {}", step, failure.rank, failure.text),
              failure.rank);
}

}  // namespace cairn
