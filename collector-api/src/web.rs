//! The web page: files built from `web/`, embedded in this program, served at `/` of the operator door.
//!
//! The page is one document and a few files named by the hash of their content. Those are kept by
//! browsers for ever; the document is asked for each time and answered by its `ETag`. Everything is
//! compressed when it is built, not when it is served. Every address the page shows ([`VIEWS`]) is the
//! same document, so that a link to a view works.
//!
//! The page gets nothing from elsewhere and runs nothing that was not built into it: see [`POLICY`].
//! It needs no API key to load and knows nothing; what it shows it asks REST for.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;

use crate::auth::secret;

/// A file of the page.
struct Asset {
    /// From the page's root.
    path: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

/// What `build.rs` found.
static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/web_assets.rs"));

/// The document.
const DOCUMENT: &str = "index.html";

/// Addresses of the page's views. `web/src/router.ts` knows them, too.
const VIEWS: [&str; 7] =
    ["/", "/host/{host}", "/process/{process_id}", "/search", "/alerts", "/hosts", "/server"];

/// What the page may do: load its own files, ask its own server, and nothing else; no inline script or style,
/// no text ever parsed as HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// Sent with every file.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Shown instead of a page that was not built.
const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Procfleet</title>\
    <h1>This server was built without its web page</h1>\
    <p>Run <code>cargo xtask web</code>, build the server again and restart it. \
    The REST API works without the page: see <a href=\"/openapi.yaml\">openapi.yaml</a>.</p>";

/// The page's routes.
pub fn routes() -> OpenApiRouter {
    let mut router = OpenApiRouter::default()
        .route("/assets/{file}", get(asset))
        .route("/favicon.svg", get(async |headers: HeaderMap| named("favicon.svg", &headers)));
    for view in VIEWS {
        router = router.route(view, get(document));
    }
    router
}

async fn document(headers: HeaderMap) -> Response {
    static ETAG: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
        let digest = Sha256::digest(find(DOCUMENT)?.plain);
        let hex = secret::hex(&digest[..8]);
        HeaderValue::from_str(&format!("\"{hex}\"")).ok()
    });
    let Some(document) = find(DOCUMENT) else { return not_built() };
    let etag = ETAG.as_ref();
    let mut response = if etag.is_some() && headers.get(header::IF_NONE_MATCH) == etag {
        secured(StatusCode::NOT_MODIFIED.into_response())
    } else {
        answer(document, &headers)
    };
    if let Some(etag) = etag {
        response.headers_mut().insert(header::ETAG, etag.clone());
    }
    keep(response, "no-cache")
}

async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    match find(&format!("assets/{file}")) {
        Some(asset) => keep(answer(asset, &headers), "public, max-age=31536000, immutable"),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn named(path: &str, headers: &HeaderMap) -> Response {
    match find(path) {
        Some(asset) => keep(answer(asset, headers), "public, max-age=3600"),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// The file in the smallest form that the browser reads.
fn answer(asset: &'static Asset, headers: &HeaderMap) -> Response {
    let (encoding, body) = match (asset.brotli, asset.gzip) {
        (Some(brotli), _) if accepts(headers, "br") => (Some("br"), brotli),
        (_, Some(gzip)) if accepts(headers, "gzip") => (Some("gzip"), gzip),
        _ => (None, asset.plain),
    };
    let mut response =
        secured(([(header::CONTENT_TYPE, media_type(asset.path))], body).into_response());
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |offer| {
            let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
            name.trim().eq_ignore_ascii_case(encoding) && weight.trim() != "q=0"
        },
    )
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn secured(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn keep(mut response: Response, how: &'static str) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(how));
    response
}

fn not_built() -> Response {
    keep(secured(axum::response::Html(NOT_BUILT).into_response()), "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_taken_as_offered() {
        let offered = |text: &'static str| {
            HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(text))])
        };
        assert!(accepts(&offered("gzip, deflate, br;q=0.8"), "br"));
        assert!(!accepts(&offered("gzip, br;q=0"), "br"));
        assert!(!accepts(&HeaderMap::new(), "gzip"));
    }

    #[test]
    fn the_policy_allows_nothing_inline_and_nothing_foreign() {
        assert!(!POLICY.contains("unsafe") && !POLICY.contains("http") && !POLICY.contains('*'));
    }
}
