#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace cairn::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// Reads bytes as one file, of the format that they look like. Aborts when anything but an ordinary
/// refusal happens, or when a tensor's bytes lie outside their file. Containers are left out: where
/// they are damaged, HDF5 may be asked about them.
void read_as_file(Bytes bytes);

/// An input of the fuzzer: what it is for, and the files in it.
enum class Use : std::uint8_t {
  file = 0,       ///< read_as_file
  mended = 1,     ///< the same, with the checksums of its zip archives made right
  directory = 2,  ///< several files, checksums made right, read as a directory
  index = 3,      ///< the table of a container
  commit = 4,     ///< a container's commit record
  json = 5,       ///< a JSON text
};
inline constexpr int kUses = 6;

/// Packs an input. Of a directory, names are relative to it.
std::string pack(Use use, const std::vector<std::pair<std::string, std::string>>& files);
/// Does with an input what its first byte says; any bytes are an input. Aborts as read_as_file.
void read_input(Bytes input);

}  // namespace cairn::fuzz
