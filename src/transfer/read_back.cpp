#include "transfer/read_back.hpp"

#include "base/throw.hpp"
#include "plan/chunks.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {

void check_read_back(const WriteJob& job, const File& file, const std::vector<PartReport>& reports,
                     std::string_view writer, std::string_view advice) {
  Manifest written;
  // Where chunks with filters lie, only HDF5 knows so far.
  const Access access = has_filters(job.tensors) ? Access::hdf5 : Access::extents;
  written.files.push_back({job.file, file.size(), access, file.fingerprint()});
  Reader reader(written);
  for (std::size_t i = 0; i < job.items.size(); ++i) {
    const Extent& extent = *job.items[i].extent;
    TensorEntry tensor = job.tensors[job.items[i].tensor];
    tensor.extents = {extent};
    if (digest_in_file(reader, tensor, extent) == reports[i].digest) continue;
    fail(Errc::io, "{} reported success, but tensor '{}' {} is not in '{}' as written; {}", writer,
         tensor.name, to_string(extent.box), job.file.string(), advice);
  }
}

}  // namespace cairn::detail
