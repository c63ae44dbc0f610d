#include "formats/hdf5/dataset_reader.hpp"

#include "formats/hdf5/foreign_dataset.hpp"
#include "formats/hdf5/h5.hpp"

namespace cairn::detail {

DatasetReader::DatasetReader(const std::filesystem::path& path) : path_(path) {
  const h5::Session session;
  file_ = h5::open_serial(path).release();
}

DatasetReader::~DatasetReader() {
  const h5::Session session;
  dataset_.reset();
  H5Fclose(file_);
}

void DatasetReader::read(const TensorEntry& tensor, const Box& box, std::byte* out) {
  const h5::Session session;
  if (!dataset_ || name_ != tensor.name) {
    dataset_.reset();
    dataset_ = std::make_unique<ForeignDataset>(
        file_, tensor.name, fmt::format("dataset '/{}' of '{}'", tensor.name, path_.string()));
    name_ = tensor.name;
  }
  if (dataset_->shape() != tensor.shape) {
    fail(Errc::corrupt, "{}: its shape is not that of the index", dataset_->what());
  }
  if (dataset_->item() != item_bytes(tensor.dtype)) {
    fail(Errc::corrupt, "{}: its type is not that of the index", dataset_->what());
  }
  dataset_->read(h5::file_type(tensor.dtype).get(), box, out);
}

}  // namespace cairn::detail
