//! Group robots of WeCom: `…/cgi-bin/webhook/send?key=…`.
//!
//! Markdown of at most 4096 bytes, 20 messages a minute and robot. The answer is HTTP 200 whatever
//! happened; `errcode` says it. Mentions are made by `<@user>` in Markdown, which `escape` takes away.

use reqwest::Url;
use serde_json::json;

use super::message::{Message, Style, unmarked};
use super::provider::{Incoming, Outgoing, Verdict, by_code, json_body};

/// Of Markdown, bytes.
pub const LIMIT: usize = 4096;
/// What the robot is left alone for after it said that there were too many messages, s.
const RATE_PAUSE_S: u32 = 60;

/// A link of Markdown; our own addresses hold nothing that ends one.
const MARKDOWN: Style = Style { escape: unmarked, link: |words, url| format!("[{words}]({url})") };

/// The request.
pub fn request(url: Url, message: &Message, limit: usize) -> Outgoing {
    let text = message.text(MARKDOWN, limit);
    let body = json!({ "msgtype": "markdown", "markdown": { "content": text } });
    Outgoing { url, headers: Vec::new(), body: json_body(&body) }
}

/// What it said.
pub fn verdict(answer: &Incoming) -> Verdict {
    let code = ("errcode", answer.json()["errcode"].as_i64());
    by_code(answer, code, |code, why| match code {
        0 => Verdict::Delivered,
        45009 | 45033 => Verdict::Later(Some(RATE_PAUSE_S), why),
        -1 | 50001..=50003 => Verdict::Later(None, why),
        40058 | 45002 => Verdict::TooLong(why),
        _ => Verdict::Refused(why),
    })
}
