#include "mpi/io_component.hpp"

#include <fmt/ranges.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

/// The tool interface of MPI, through which Open MPI shows and takes its parameters.
class Tool {
 public:
  Tool() {
    int provided = 0;
    if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) {
      fail(Errc::unsupported, "this MPI library has no tool interface (MPI_T)");
    }
  }
  ~Tool() { MPI_T_finalize(); }
  Tool(const Tool&) = delete;
  Tool& operator=(const Tool&) = delete;
};

/// A parameter of the MPI library. Lifetime: within a Tool.
class Parameter {
 public:
  explicit Parameter(const std::string& name) {
    int index = 0;
    if (MPI_T_cvar_get_index(name.c_str(), &index) != MPI_SUCCESS) return;
    if (MPI_T_cvar_handle_alloc(index, nullptr, &handle_, &count_) != MPI_SUCCESS) count_ = 0;
  }
  ~Parameter() {
    if (count_ > 0) MPI_T_cvar_handle_free(&handle_);
  }
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  explicit operator bool() const { return count_ > 0; }
  std::string text() const {
    std::vector<char> buffer(static_cast<std::size_t>(count_) + 1);
    if (count_ == 0 || MPI_T_cvar_read(handle_, buffer.data()) != MPI_SUCCESS) return {};
    return buffer.data();
  }
  int number() const {
    int value = 0;
    return count_ == 1 && MPI_T_cvar_read(handle_, &value) == MPI_SUCCESS ? value : 0;
  }
  /// MPI refuses where it is too late.
  void write(const std::string& text) const {
    std::vector<char> buffer(static_cast<std::size_t>(count_) + 1);
    if (text.size() >= buffer.size()) return;
    std::copy(text.begin(), text.end(), buffer.begin());
    MPI_T_cvar_write(handle_, buffer.data());
  }

 private:
  MPI_T_cvar_handle handle_ = nullptr;
  int count_ = 0;
};

/// The list of components, which Open MPI reads when it opens its first file.
constexpr const char* kSelection = "io";
/// All components that any Open MPI has had, by name; ROMIO's ends in its version.
constexpr std::array<std::string_view, 5> kComponents{"ompio", "romio341", "romio321", "romio314",
                                                      "romio"};

struct Available {
  std::string name;
  int priority = 0;
};

std::vector<Available> available_components() {
  std::vector<Available> found;
  for (const auto name : kComponents) {
    const Parameter priority(fmt::format("io_{}_priority", name));
    if (priority) found.push_back({std::string(name), priority.number()});
  }
  return found;
}

bool is_open_mpi() { return mpi_library().starts_with("Open MPI"); }

/// The full name of a component. Lifetime: within a Tool. Errors: unsupported.
std::string component_like(std::string_view wanted) {
  std::vector<std::string> names;
  for (const Available& component : available_components()) {
    if (component.name.starts_with(wanted)) return component.name;
    names.push_back(component.name);
  }
  fail(Errc::unsupported, "{} has no component '{}' for MPI-IO, but {}", mpi_library(), wanted,
       fmt::join(names, ", "));
}

/// One name, and not a list or an exclusion.
bool names_one(const std::string& selection) {
  return !selection.empty() && selection.find_first_of(",^") == std::string::npos;
}

}  // namespace

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string_view all(text.data());
  return std::string(all.substr(0, std::min<std::size_t>(all.find_first_of(",\n"), 64)));
}

namespace {

std::string ask_for_component() {
  if (!is_open_mpi()) return mpi_library().starts_with("MPICH") ? "romio" : "";
  const Tool tool;
  const std::string selection = Parameter(kSelection).text();
  if (names_one(selection)) return selection;
  const auto components = available_components();
  const auto best =
      std::max_element(components.begin(), components.end(),
                       [](const auto& a, const auto& b) { return a.priority < b.priority; });
  return best == components.end() || !selection.empty() ? "" : best->name;
}

}  // namespace

std::string io_component() {
  // Files that were opened have settled it for good; asking takes a tenth of a second.
  static const std::string component = ask_for_component();
  return component;
}

void pin_io_component(std::string_view wanted) {
  if (!is_open_mpi()) {
    if (wanted == "romio" && mpi_library().starts_with("MPICH")) return;
    fail(Errc::unsupported, "{} does not let a program choose '{}' for MPI-IO; use 'auto'",
         mpi_library(), wanted);
  }
  std::string before;
  std::string name;
  {
    const Tool tool;
    const Parameter selection(kSelection);
    before = selection.text();
    if (names_one(before) && before.starts_with(wanted)) return;
    name = component_like(wanted);
    selection.write(name);
  }
  // A file that was opened before, or the environment, has the last word.
  const Tool tool;
  if (Parameter(kSelection).text() != name) {
    fail(Errc::usage,
         "MPI-IO of this process is bound to {} already, by an earlier file or by the environment: "
         "export OMPI_MCA_io={} before the program starts, or use mpirun --mca io {}",
         before.empty() ? "the component that MPI prefers" : before, name, name);
  }
}

}  // namespace cairn::detail
