#include <fmt/format.h>

#include "base/throw.hpp"
#include "cairn/source.hpp"
#include "sources/url.hpp"

namespace cairn {
namespace {

using namespace detail;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

std::string_view source_type(const Source& source) {
  return std::visit(
      Overloaded{[](const LocalSource&) -> std::string_view { return "local"; },
                 [](const RunSource&) -> std::string_view { return "run"; },
                 [](const HttpSource& http) -> std::string_view {
                   return http.url.starts_with("https://") ? "https" : "http";
                 },
                 [](const S3Source&) -> std::string_view { return "s3"; },
                 [](const HubSource&) -> std::string_view { return "huggingface"; },
                 [](const CustomSource& custom) -> std::string_view { return custom.type; }},
      source);
}

std::string describe(const Source& source) {
  return std::visit(
      Overloaded{
          [](const LocalSource& local) { return local.path.string(); },
          [](const RunSource& run) { return (run.root / run.run_id).string(); },
          [](const HttpSource& http) { return masked_url(http.url); },
          [](const S3Source& s3) { return fmt::format("s3://{}/{}", s3.bucket, s3.key); },
          [](const HubSource& hub) { return fmt::format("hf://{}@{}", hub.repo, hub.revision); },
          [](const CustomSource& custom) {
            return fmt::format("a source of type {}", custom.type);
          },
      },
      source);
}

}  // namespace cairn
