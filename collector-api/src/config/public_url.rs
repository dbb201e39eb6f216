//! Where people find the web page: what links in messages begin with.

use std::fmt;

use axum::http::Uri;
use serde::Deserialize;

/// `http` or `https`, a host, perhaps a port and a path; no slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicUrl(String);

/// Not an address of a page.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not the address of a web page such as https://procfleet.example: http or https, without user, query and fragment"
)]
pub struct PublicUrlError(String);

impl TryFrom<String> for PublicUrl {
    type Error = PublicUrlError;

    fn try_from(text: String) -> Result<Self, PublicUrlError> {
        let parse = || {
            let uri: Uri = text.parse().ok()?;
            let is_page = matches!(uri.scheme_str(), Some("http" | "https"));
            let has_host = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
            // Brackets and parentheses would end a link of Markdown.
            let is_plain = uri.query().is_none() && !text.contains(['#', '(', ')', '<', '>', '|']);
            let is_short = text.len() <= 200;
            (is_page && has_host && is_plain && is_short)
                .then(|| Self(text.trim_end_matches('/').to_owned()))
        };
        parse().ok_or_else(|| PublicUrlError(text.clone()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_an_address_without_secrets_and_without_a_slash() {
        let parse = |text: &str| PublicUrl::try_from(text.to_owned()).map(|url| url.to_string());
        for (text, is) in [
            ("https://procfleet.example", "https://procfleet.example"),
            ("https://procfleet.example/", "https://procfleet.example"),
            ("http://[::1]:7080/ui/", "http://[::1]:7080/ui"),
        ] {
            assert_eq!(parse(text).unwrap(), is);
        }
        let long = format!("https://{}.example", "a".repeat(250));
        for text in [
            "procfleet.example",
            "ftp://procfleet.example",
            "https://me:secret@procfleet.example",
            "https://procfleet.example/?key=1",
            "https://procfleet.example/#x",
            "https://procfleet.example/a)b",
            &long,
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
