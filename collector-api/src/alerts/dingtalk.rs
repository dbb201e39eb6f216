//! Robots of DingTalk: `…/robot/send?access_token=…`, signed.
//!
//! 20 messages a minute, then silence for 10 minutes (`errcode` 130101, or a redirect). The signature
//! is HMAC-SHA256 with the secret as key over `<ms>\n<secret>`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use ring::hmac;
use serde_json::json;

use super::message::{Message, PLAIN};
use super::provider::{Incoming, Outgoing, Verdict, by_code, json_body};

/// Of a text, bytes; the documented limit of a body is 20,000.
pub const LIMIT: usize = 16_000;
/// How long a robot that had too many messages takes none, s.
const RATE_PAUSE_S: u32 = 600;

/// The request.
pub fn request(mut url: Url, secret: Option<&str>, message: &Message, limit: usize) -> Outgoing {
    if let Some(secret) = secret {
        let at = (message.now.unix_timestamp_nanos() / 1_000_000).to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let sign = hmac::sign(&key, format!("{at}\n{secret}").as_bytes());
        let sign = STANDARD.encode(sign.as_ref());
        url.query_pairs_mut().append_pair("timestamp", &at).append_pair("sign", &sign);
    }
    let text = message.text(PLAIN, limit);
    let body =
        json!({ "msgtype": "text", "text": { "content": text }, "at": { "isAtAll": false } });
    Outgoing { url, headers: Vec::new(), body: json_body(&body) }
}

/// What it said.
pub fn verdict(answer: &Incoming) -> Verdict {
    if answer.status == 302 {
        return Verdict::Later(Some(RATE_PAUSE_S), "HTTP 302".into());
    }
    let code = ("errcode", answer.json()["errcode"].as_i64());
    by_code(answer, code, |code, why| match code {
        0 => Verdict::Delivered,
        130_101 | 410_100 => Verdict::Later(Some(RATE_PAUSE_S), why),
        -1 => Verdict::Later(None, why),
        460_101 => Verdict::TooLong(why),
        _ => Verdict::Refused(why),
    })
}
