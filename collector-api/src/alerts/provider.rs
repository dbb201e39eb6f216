//! What all providers have in common: a request to make, an answer to judge.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::message::Message;
use super::{alertmanager, dingtalk, email, feishu, slack, webhook, wecom};

/// Where a channel's messages go. Sealed at rest; no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Destination {
    /// The whole address: for most providers the credential itself.
    pub url: String,
    /// What requests are signed with.
    pub secret: Option<String>,
}

/// A request to be made: always a POST of JSON.
pub struct Outgoing {
    /// Where.
    pub url: Url,
    /// Beside the content type.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, s.
    pub retry_after_s: Option<u32>,
    /// Its first 64 KiB.
    pub body: Vec<u8>,
}

impl Incoming {
    /// The body as JSON; null: it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Delivered,
    /// Not now. With the pause that the provider asked for, s.
    Later(Option<u32>, String),
    /// Too long for the provider: shorter, once.
    TooLong(String),
    /// Never.
    Refused(String),
}

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A group robot of WeCom.
    Wecom,
    /// A robot of DingTalk.
    Dingtalk,
    /// A robot of Feishu or Lark.
    Feishu,
    /// An incoming webhook of Slack.
    Slack,
    /// JSON with an HMAC.
    Webhook,
    /// SMTP.
    Email,
    /// The peers of a Prometheus Alertmanager, version 2 of its API.
    Alertmanager,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Wecom,
        Self::Dingtalk,
        Self::Feishu,
        Self::Slack,
        Self::Webhook,
        Self::Email,
        Self::Alertmanager,
    ];

    /// As in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wecom => "wecom",
            Self::Dingtalk => "dingtalk",
            Self::Feishu => "feishu",
            Self::Slack => "slack",
            Self::Webhook => "webhook",
            Self::Email => "email",
            Self::Alertmanager => "alertmanager",
        }
    }

    /// As in the table.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Messages per minute that stay below the provider's own limit.
    pub fn per_minute(self) -> i32 {
        match self {
            Self::Wecom | Self::Dingtalk => 15,
            Self::Feishu => 60,
            Self::Slack | Self::Email => 30,
            Self::Webhook | Self::Alertmanager => 120,
        }
    }

    /// Longest text, bytes.
    pub fn limit(self) -> usize {
        match self {
            Self::Wecom => wecom::LIMIT,
            Self::Dingtalk => dingtalk::LIMIT,
            Self::Feishu => feishu::LIMIT,
            Self::Slack => slack::LIMIT,
            Self::Email => email::LIMIT,
            Self::Webhook | Self::Alertmanager => usize::MAX,
        }
    }

    /// What is wrong with an address of this kind; none: nothing.
    pub fn refuses(self, address: &str) -> Option<String> {
        match self {
            Self::Email => email::Route::parse(address).err(),
            Self::Alertmanager => alertmanager::peers(address).err(),
            _ => {
                let is_url = address.starts_with("https://") || address.starts_with("http://");
                (!is_url).then(|| "must be an http or https URL".to_owned())
            }
        }
    }

    /// The request that carries `message` in at most `limit` bytes of text. None: the address is none, or nothing is
    /// asked by one request ([`email`], [`alertmanager`]).
    pub fn request(
        self,
        destination: &Destination,
        message: &Message,
        limit: usize,
    ) -> Option<Outgoing> {
        let url = Url::parse(&destination.url).ok()?;
        let secret = destination.secret.as_deref();
        Some(match self {
            Self::Wecom => wecom::request(url, message, limit),
            Self::Dingtalk => dingtalk::request(url, secret, message, limit),
            Self::Feishu => feishu::request(url, secret, message, limit),
            Self::Slack => slack::request(url, message, limit),
            Self::Webhook => webhook::request(url, secret, message),
            Self::Email | Self::Alertmanager => return None,
        })
    }

    /// What the provider said.
    pub fn verdict(self, answer: &Incoming) -> Verdict {
        match self {
            Self::Wecom => wecom::verdict(answer),
            Self::Dingtalk => dingtalk::verdict(answer),
            Self::Feishu => feishu::verdict(answer),
            Self::Slack | Self::Webhook | Self::Email | Self::Alertmanager => by_status(answer),
        }
    }
}

/// What a status alone means: for providers that say no more, and for proxies in between.
pub fn by_status(answer: &Incoming) -> Verdict {
    let why = format!("HTTP {}", answer.status);
    match answer.status {
        200..300 => Verdict::Delivered,
        413 => Verdict::TooLong(why),
        408 | 425 | 500.. => Verdict::Later(answer.retry_after_s, why),
        429 => Verdict::Later(Some(answer.retry_after_s.unwrap_or(60)), why),
        _ => Verdict::Refused(why),
    }
}

/// What an answer means whose body holds the provider's own code, called `name`. Success by its status
/// alone is none: something else answered.
pub fn by_code(
    answer: &Incoming,
    (name, code): (&str, Option<i64>),
    meaning: impl FnOnce(i64, String) -> Verdict,
) -> Verdict {
    match (code, by_status(answer)) {
        (Some(code), _) => meaning(code, format!("{name} {code}")),
        (None, Verdict::Delivered) => Verdict::Later(None, format!("an answer without {name}")),
        (None, verdict) => verdict,
    }
}

/// JSON of a body that is made of strings and numbers.
pub fn json_body(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
