//! Browsers: a session begun with an API key, carried by a cookie instead of it.
//!
//! The cookie is `HttpOnly` (no script reads it), `SameSite=Strict` (no other site's page sends it),
//! and `Secure` where the page came over TLS. It lives [`SESSION_LIFE`] at most and says nothing but
//! a random token, whose hash is in the database for every replica.
//!
//! A request with a cookie that changes something must also prove that our own page sent it: by
//! `Sec-Fetch-Site: same-origin`, which pages cannot forge, or in browsers that do not send it, by an
//! `Origin` that names the host asked. An API key in `Authorization` needs no such proof: no browser
//! adds it by itself.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts};
use shared_model::ProblemCode;

use super::operator::Operator;
use super::secret;
use crate::error::{ApiError, ApiResult};
use crate::store::Store;
use crate::store::sessions::Session;

/// Name of the cookie.
pub const COOKIE: &str = "procfleet_session";
/// Longest life of a session: a shift.
pub const SESSION_LIFE: Duration = Duration::from_hours(12);
/// Longest token looked at, bytes: 32 bytes in base64url are 43.
const MAX_TOKEN_BYTES: usize = 64;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The token in the cookie of a request.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, token)| *name == COOKIE && !token.is_empty())
        .map(|(_, token)| token)
        .filter(|token| token.len() <= MAX_TOKEN_BYTES)
}

/// The cookie that begins a session, or with an empty token ends it.
pub fn cookie(token: &str, secure: bool) -> Option<HeaderValue> {
    let life_s = if token.is_empty() { 0 } else { SESSION_LIFE.as_secs() };
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={token}; Path=/; Max-Age={life_s}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Begins a session of `operator`: its token, shown once, and the session.
pub async fn begin(store: &Store, operator: &Operator) -> ApiResult<(String, Session)> {
    let token = secret::generate().map_err(|error| {
        ApiError::new(ProblemCode::Internal, "The server cannot begin sessions now; see its log.")
            .caused_by(error)
    })?;
    let life_s = SESSION_LIFE.as_secs_f64();
    let expires_at = store
        .begin_session(&secret::digest(&token), (operator.api_key_id, &operator.name), life_s)
        .await?;
    let (name, rights) = (operator.name.clone(), operator.rights.clone());
    Ok((token, Session { api_key_id: operator.api_key_id, name, rights, expires_at }))
}

/// Whose session the cookie of a request is. `None`: there is no cookie.
pub async fn authenticate(store: &Store, parts: &Parts) -> ApiResult<Option<Operator>> {
    let Some(token) = token(&parts.headers) else { return Ok(None) };
    let session = store.find_session(&secret::digest(token)).await?.ok_or_else(|| {
        ApiError::new(ProblemCode::Unauthorized, "The session has ended: log in again.")
    })?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        require_own_page(&parts.headers)?;
    }
    let Session { api_key_id, name, rights, .. } = session;
    Ok(Some(Operator { api_key_id, name, rights }))
}

/// Refuses what another site's page may have sent.
pub fn require_own_page(headers: &HeaderMap) -> ApiResult<()> {
    if is_own_page(headers) {
        return Ok(());
    }
    Err(ApiError::new(
        ProblemCode::Forbidden,
        "With a session's cookie, only Procfleet's own page may change something: scripts send an API key.",
    ))
}

fn is_own_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()?.parse().ok());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    match (origin.as_ref().and_then(Uri::authority), host) {
        (Some(origin), Some(host)) => origin.as_str().eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// Whether the page came over TLS, also where a proxy ends it.
pub fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_token_is_found_among_cookies() {
        assert_eq!(token(&headers(&[("cookie", "a=b; procfleet_session=t1; c=d")])), Some("t1"));
        assert_eq!(token(&headers(&[("cookie", "procfleet_session=")])), None);
        assert_eq!(token(&headers(&[("cookie", "xprocfleet_session=t")])), None);
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn only_our_own_page_may_change_something() {
        for (own, pairs) in [
            (true, &[("sec-fetch-site", "same-origin"), ("origin", "https://x.example")][..]),
            (true, &[("origin", "http://h:7080"), ("host", "h:7080")]),
            (false, &[("sec-fetch-site", "same-site"), ("host", "h")]),
            (false, &[("sec-fetch-site", "cross-site")]),
            (false, &[("sec-fetch-site", "none")]),
            (false, &[("origin", "http://h:7081"), ("host", "h:7080")]),
            (false, &[("origin", "null"), ("host", "h")]),
            (false, &[("host", "h")]),
        ] {
            assert_eq!(is_own_page(&headers(pairs)), own, "{pairs:?}");
        }
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let text = |secure| cookie("t", secure).unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            text(true),
            "procfleet_session=t; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
        );
        assert!(!text(false).contains("Secure"));
        assert!(cookie("", false).unwrap().to_str().unwrap().contains("Max-Age=0"));
    }
}
