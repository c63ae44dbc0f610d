#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail::torch {

// What str() gives of a path of Python's pathlib that is made of these parts. Python up to 3.12
// pickles the parts of the path, 3.13 what the program gave. No file system is asked. Local.

std::string posix_path(const std::vector<std::string_view>& parts);
std::string windows_path(const std::vector<std::string_view>& parts);

}  // namespace cairn::detail::torch
