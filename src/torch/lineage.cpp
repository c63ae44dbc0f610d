#include "torch/lineage.hpp"

#include <cstdint>
#include <random>
#include <variant>

#include "cairn/source.hpp"
#include "torch/documents.hpp"

namespace cairn::detail {

std::string new_uuid() {
  std::random_device device;
  const auto half = [&] { return std::uint64_t{device()} << 32 | device(); };
  const std::uint64_t high = (half() & ~0xf000ULL) | 0x4000ULL;
  const std::uint64_t low = (half() & ~(0x3ULL << 62)) | 0x2ULL << 62;
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, high >> 16 & 0xffff,
                     high & 0xffff, low >> 48, low & 0xffffffffffffULL);
}

std::string lineage_document(const Lineage& lineage) {
  return Json{{"run_id", lineage.run_id},
              {"uuid", lineage.uuid},
              {"parent_uuid", lineage.parent_uuid},
              {"fork", lineage.fork}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

Lineage read_lineage(const Manifest& manifest) {
  Lineage lineage;
  const auto document = find_document(manifest, "lineage");
  if (!document) return lineage;
  reading_document(manifest, "lineage", [&] {
    lineage.run_id = document->at("run_id").get<std::string>();
    lineage.uuid = document->at("uuid").get<std::string>();
    lineage.parent_uuid = document->at("parent_uuid").get<std::string>();
    lineage.fork = document->at("fork").get<bool>();
  });
  return lineage;
}

Lineage descend(const Lineage& run, const CheckpointContext& loaded) {
  Lineage lineage = run;
  lineage.parent_uuid = loaded.lineage.uuid;
  const auto* source =
      loaded.config.source ? std::get_if<RunSource>(&*loaded.config.source) : nullptr;
  lineage.fork = source != nullptr && source->fork;
  const bool continues = !lineage.fork && loaded.config.loading.value_or(LoadingConfig{}).type ==
                                              LoadingType::warm_start;
  if (continues && !loaded.lineage.run_id.empty()) lineage.run_id = loaded.lineage.run_id;
  if (continues && source != nullptr) lineage.run_id = source->run_id;
  return lineage;
}

}  // namespace cairn::detail
