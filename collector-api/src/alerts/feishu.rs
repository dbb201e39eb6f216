//! Robots of Feishu and Lark: `…/open-apis/bot/v2/hook/…`, signed.
//!
//! 100 messages a minute, a body of at most 20 KiB. The signature is HMAC-SHA256 with
//! `<s>\n<secret>` as key over nothing. "Too many" comes as HTTP 400 with `code` 9499, or 11232.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use ring::hmac;
use serde_json::json;

use super::message::{Message, PLAIN};
use super::provider::{Incoming, Outgoing, Verdict, by_code, json_body};

/// Of a text, bytes: JSON may double it.
pub const LIMIT: usize = 9_000;
/// Pause after too many messages, s.
const RATE_PAUSE_S: u32 = 60;

/// The request.
pub fn request(url: Url, secret: Option<&str>, message: &Message, limit: usize) -> Outgoing {
    let text = message.text(PLAIN, limit);
    let mut body = json!({ "msg_type": "text", "content": { "text": text } });
    if let Some(secret) = secret {
        let at = message.now.unix_timestamp().to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, format!("{at}\n{secret}").as_bytes());
        body["sign"] = STANDARD.encode(hmac::sign(&key, b"").as_ref()).into();
        body["timestamp"] = at.into();
    }
    Outgoing { url, headers: Vec::new(), body: json_body(&body) }
}

/// What it said.
pub fn verdict(answer: &Incoming) -> Verdict {
    let body = answer.json();
    let code = ("code", body["code"].as_i64().or_else(|| body["StatusCode"].as_i64()));
    by_code(answer, code, |code, why| match code {
        0 => Verdict::Delivered,
        9499 | 11232 | 11233 => Verdict::Later(Some(RATE_PAUSE_S), why),
        _ if answer.status >= 500 => Verdict::Later(None, why),
        9500 | 11246 => Verdict::TooLong(why),
        _ => Verdict::Refused(why),
    })
}
