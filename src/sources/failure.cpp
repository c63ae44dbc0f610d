#include "sources/failure.hpp"

#include <fmt/format.h>

#include <charconv>

#include "base/text.hpp"

namespace cairn::detail {
namespace {

std::string_view meaning(long status) {
  switch (status) {
    case 400:
      return "bad request";
    case 401:
      return "not authorised: credentials are missing or wrong";
    case 403:
      return "forbidden: these credentials may not read it";
    case 404:
      return "not found";
    case 407:
      return "the proxy wants credentials";
    case 408:
      return "the server waited too long for the request";
    case 410:
      return "gone for good";
    case 416:
      return "the file is shorter than it was";
    case 429:
      return "too many requests";
    case 501:
      return "the server cannot do that";
    case 502:
    case 504:
      return "a gateway got no answer";
    case 503:
      return "the server is busy or down";
    case 505:
      return "the server speaks another version of HTTP";
    default:
      break;
  }
  if (status >= 500) return "the server failed";
  return status >= 300 && status < 400 ? "it is elsewhere" : "refused";
}

/// Whether the same request may be answered well later. Of 5xx, two say what the server is, not how
/// it does.
bool is_passing(long status) {
  return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

RequestFailure refused(const Remote& remote, const Request& request) {
  const Reply& reply = request.reply();
  RequestFailure failure;
  failure.code = reply.status == 404 || reply.status == 410 ? Errc::not_found : Errc::io;
  failure.again = is_passing(reply.status);
  const std::string why = remote.explain ? remote.explain(request.refusal()) : "";
  failure.text = fmt::format("{}: the server answers {} ({})", remote.shown, reply.status,
                             why.empty() ? meaning(reply.status) : why);
  if (!reply.region.empty() && !remote.follow_redirects) {
    failure.text += fmt::format("; the bucket is in the region {}", printable(reply.region));
  }
  int seconds = 0;
  const char* const end = reply.retry_after.data() + reply.retry_after.size();
  if (std::from_chars(reply.retry_after.data(), end, seconds).ptr == end && seconds > 0) {
    failure.wait = std::chrono::seconds(seconds);
  }
  return failure;
}

}  // namespace

RequestFailure explain_failure(const Remote& remote, const Request& request, CURLcode code) {
  if (code == CURLE_OK || request.reply().status >= 400) return refused(remote, request);
  RequestFailure failure{
      Errc::io, fmt::format("{}: {}", remote.shown, request.detail(code)), true, {}};
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      failure.code = Errc::timeout;
      break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      failure.text += "; check the name, and the network of the machine of rank 0";
      break;
    case CURLE_URL_MALFORMAT:
      failure.code = Errc::usage;
      failure.again = false;
      break;
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_UNSUPPORTED_PROTOCOL:  // a redirect from https to http, too
      failure.again = false;
      break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
      failure.text += "; name the certificate to trust by checkpoint.source.ca_file";
      failure.again = false;
      break;
    default:
      break;
  }
  return failure;
}

}  // namespace cairn::detail
