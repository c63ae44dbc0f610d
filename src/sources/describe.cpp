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

Source source_from_string(const std::string& text) {
  if (text.starts_with("http://") || text.starts_with("https://")) return HttpSource{text};
  if (text.starts_with("s3://")) {
    const std::string rest = text.substr(5);
    const auto slash = rest.find('/');
    if (slash == 0 || slash == std::string::npos || slash + 1 == rest.size()) {
      fail(Errc::usage, "'{}' is no s3://bucket/key", text);
    }
    return S3Source{rest.substr(0, slash), rest.substr(slash + 1)};
  }
  if (text.starts_with("hf://")) {
    const std::string rest = text.substr(5);
    const auto at = rest.find('@');
    HubSource hub{rest.substr(0, at)};
    if (at != std::string::npos) hub.revision = rest.substr(at + 1);
    if (hub.repo.empty() || hub.revision.empty()) {
      fail(Errc::usage, "'{}' is no hf://owner/name[@revision]", text);
    }
    return hub;
  }
  return LocalSource{text};
}

}  // namespace cairn
