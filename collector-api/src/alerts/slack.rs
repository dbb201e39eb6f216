//! Incoming webhooks of Slack. One message a second; 429 with `Retry-After` beyond.
//!
//! Mentions and links are `<…>`, which `plain` takes away; `link_names` and unfurling are off.

use reqwest::Url;
use serde_json::json;

use super::message::{Message, plain};
use super::provider::{Outgoing, json_body};

/// Of a text, bytes.
pub const LIMIT: usize = 12_000;

/// The request.
pub fn request(url: Url, message: &Message, limit: usize) -> Outgoing {
    let text = message.text(plain, limit);
    let body = json!({
        "text": text, "mrkdwn": false, "link_names": false, "parse": "none",
        "unfurl_links": false, "unfurl_media": false,
    });
    Outgoing { url, headers: Vec::new(), body: json_body(&body) }
}
