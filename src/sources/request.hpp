#pragma once

#include <curl/curl.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::detail {

/// A file on a server, and how to ask for it.
struct Remote {
  std::string url;          ///< may hold secrets
  std::string shown;        ///< what messages call it
  std::string name;         ///< what the file is called in the cache
  std::string sha256 = {};  ///< that it must have, in lower case; empty: whatever there is
  std::filesystem::path ca_file = {};
  /// False where a request is good for one server only, because it is signed.
  bool follow_redirects = true;
  /// The header lines of a request that is sent now: credentials, signatures.
  std::function<std::vector<std::string>()> headers = {};
  /// What the body of a refusal says, for people; empty: nothing that helps.
  std::function<std::string(std::string_view body)> explain = {};
};

/// What the headers of an answer say.
struct Reply {
  long status = 0;
  std::string etag;
  std::string last_modified;
  std::string content_range;
  std::string retry_after;
  std::string region;  ///< x-amz-bucket-region
  std::string commit;  ///< x-repo-commit, of the first answer that has one: also of a redirect
  std::optional<std::uint64_t> content_length;
  bool ends_visibly = false;  ///< chunked, or framed by HTTP/2: a cut can be told from the end
};

/// What of the file is wanted, and of which version.
struct Ask {
  std::string range = {};          ///< "0-99"; empty: everything
  std::string if_range = {};       ///< a strong validator
  std::string if_none_match = {};  ///< an ETag
  std::chrono::milliseconds timeout{};
  std::chrono::seconds stall{};  ///< a connection that brings nothing for so long is given up
};

/// One GET, to be driven by a curl_multi. Local.
class Request {
 public:
  /// Takes the bytes of an answer of status 200 or 206, as they come. What it throws ends the
  /// request, and is in failure().
  using Sink = std::function<void(const Reply&, std::span<const std::byte>)>;

  Request(const Remote& remote, const Ask& ask, Sink sink);
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  CURL* handle() const { return easy_.get(); }
  const Reply& reply() const { return reply_; }
  /// The first bytes of a refusal.
  const std::string& refusal() const { return refusal_; }
  const std::exception_ptr& failure() const { return failure_; }
  /// What libcurl says about an error.
  std::string detail(CURLcode code) const;

 private:
  void set_headers(const Remote& remote, const Ask& ask);
  void set_limits(const Remote& remote, const Ask& ask);
  void read_header(std::string_view line);
  void take(std::span<const std::byte> bytes);
  static std::size_t on_header(char* data, std::size_t size, std::size_t count, void* self);
  static std::size_t on_body(char* data, std::size_t size, std::size_t count, void* self);

  Sink sink_;
  Reply reply_;
  std::string refusal_;
  std::exception_ptr failure_;
  char error_[CURL_ERROR_SIZE] = {};
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> lines_;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy_;  // refers to all of the above
};

/// Makes libcurl ready, once for the process. Thread-safe. Errors: internal.
void prepare_curl();

}  // namespace cairn::detail
