#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "cairn/checkpoint.hpp"

namespace cairn::bench {

// The least that a save, a load or a snapshot must do, by the same ranks with the same buffers.
// Each rank's bytes lie behind those of the lower ranks. All are Collective but copy_raw.

/// Where this rank's run of the raw file begins.
std::uint64_t raw_offset(const Comm& comm, std::uint64_t my_bytes);

/// Every buffer in one pwrite; with `durable` fsync.
void write_raw(const Comm& comm, std::span<const MutableTensorView> pieces,
               const std::filesystem::path& path, std::uint64_t offset, bool durable);
/// As many bytes from a small aligned buffer by O_DIRECT, 8 MiB a request, and fsync: what the disk
/// alone takes. By pwrite where the file system knows no O_DIRECT.
void write_past_cache(const Comm& comm, std::uint64_t bytes, const std::filesystem::path& path,
                      std::uint64_t offset);
/// All bytes, which `packed` holds already, in one pwrite.
void write_packed(const Comm& comm, std::span<const std::byte> packed,
                  const std::filesystem::path& path, std::uint64_t offset);
/// Every buffer in one pread.
void read_raw(const Comm& comm, std::span<const MutableTensorView> pieces,
              const std::filesystem::path& path, std::uint64_t offset);
/// Every buffer in one memcpy.
void copy_raw(std::span<const MutableTensorView> pieces, std::span<std::byte> to);
/// HDF5 alone makes datasets like those of `manifest`, on rank 0, with the settings of cairn, and
/// closes the file.
void create_datasets(const Comm& comm, const Manifest& manifest, const std::filesystem::path& path);

}  // namespace cairn::bench
