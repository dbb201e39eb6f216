//! Incoming webhooks of Slack. One message a second; 429 with `Retry-After` beyond.
//!
//! Mentions and links are `<…>`, which `plain` takes away; `link_names` and unfurling are off.

use reqwest::Url;
use serde_json::json;

use super::message::{Message, Style, plain};
use super::provider::{Outgoing, json_body};

/// Of a text, bytes.
pub const LIMIT: usize = 12_000;

/// With `parse` off only this form is a link; `&` is an entity in it.
const STYLE: Style =
    Style { escape: plain, link: |words, url| format!("<{}|{words}>", url.replace('&', "&amp;")) };

/// The request.
pub fn request(url: Url, message: &Message, limit: usize) -> Outgoing {
    let text = message.text(STYLE, limit);
    let body = json!({
        "text": text, "mrkdwn": false, "link_names": false, "parse": "none",
        "unfurl_links": false, "unfurl_media": false,
    });
    Outgoing { url, headers: Vec::new(), body: json_body(&body) }
}
