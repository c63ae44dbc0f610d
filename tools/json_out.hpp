#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/comm.hpp"
#include "output.hpp"

namespace cairn::tool {

/// JSON on stdout, written as it is made: a tree of all that a table holds would take ten times its
/// memory. All members are Local. Errors: io (stdout is closed or full).
class JsonOut {
 public:
  /// Begins the whole, an element of a list, or a member of an object. `bracket`: '{' or '['.
  void open(char bracket);
  void open(std::string_view name, char bracket);
  void close();
  void add(const Json& element);
  void add(std::string_view name, const Json& member);
  /// Ends the line, and writes what is left.
  void finish();

 private:
  struct Level {
    char bracket;
    bool empty = true;
  };

  void begin_entry();
  void put_name(std::string_view name);
  void put(const Json& value);
  void write();

  std::vector<Level> levels_;
  std::string pending_;
};

/// The elements of a list, which must be JSON without spaces between them, one at a time. Local.
void for_each_element(std::string_view list, const std::function<void(const Json&)>& element);

/// Rank 0 writes what `make` adds. Collective. Errors: io, and those of `make`.
void print_json(const Comm& comm, const std::function<void(JsonOut&)>& make);

}  // namespace cairn::tool
