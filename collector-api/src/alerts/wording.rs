//! The words of messages, in English and in Chinese.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::evidence::Busy;
use super::message::Message;
use crate::store::notifications::Notification;
use crate::store::usage::Resource;

/// Of a channel's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Language {
    /// As in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// As in the table; what it does not know is English.
    pub fn parse(text: &str) -> Self {
        if text == "zh" { Self::Zh } else { Self::En }
    }
}

/// First line of a message.
pub fn heading(message: &Message) -> String {
    match (message.language, message.items.as_slice()) {
        (Language::En, []) => "Procfleet: this channel works (test message)".to_owned(),
        (Language::Zh, []) => "Procfleet：通道工作正常（测试消息）".to_owned(),
        (Language::En, [one]) => format!("Procfleet: {}", state(Language::En, one)),
        (Language::Zh, [one]) => format!("Procfleet：{}", state(Language::Zh, one)),
        (language, many) => {
            let over = many.iter().filter(|item| item.kind == "resolved").count();
            let begun = many.len() - over;
            match language {
                Language::En => format!("Procfleet: {begun} alerts, {over} resolved"),
                Language::Zh => format!("Procfleet：{begun} 条告警，{over} 条恢复"),
            }
        }
    }
}

fn state(language: Language, item: &Notification) -> &'static str {
    match (language, item.kind.as_str(), item.severity.as_str()) {
        (Language::En, "resolved", _) => "resolved",
        (Language::Zh, "resolved", _) => "已恢复",
        (Language::En, _, "critical") => "critical",
        (Language::Zh, _, "critical") => "严重告警",
        (Language::En, ..) => "warning",
        (Language::Zh, ..) => "告警",
    }
}

/// What data brings into a line, escaped already.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of the host.
    pub host: Option<String>,
    /// Of the rule.
    pub rule: String,
    /// Of the mount point, device, interface or process.
    pub object: Option<String>,
}

/// The line of a notification.
pub fn line(language: Language, item: &Notification, names: &Names) -> String {
    let what = match item.detail["metric"].as_str() {
        Some(metric) => found(language, item, metric, names),
        None => what(language, item, names),
    };
    let at = clock(item.began_at);
    let subject = names.host.as_ref().map(|host| format!("{host}: ")).unwrap_or_default();
    let lasted = item.resolved_at.map(|end| lasted(end - item.began_at));
    match (language, item.kind.as_str(), lasted) {
        (Language::En, "resolved", Some(lasted)) => {
            format!("- {subject}{what}: over after {lasted} (since {at})")
        }
        (Language::Zh, "resolved", Some(lasted)) => {
            format!("- {subject}{what}：已恢复，持续 {lasted}（始于 {at}）")
        }
        (Language::En, "flapping", _) => {
            format!(
                "- {subject}{what} since {at}: the fourth time within an hour, muted until it is stable"
            )
        }
        (Language::Zh, "flapping", _) => {
            format!("- {subject}{what}，始于 {at}：一小时内第四次，稳定之前不再通知")
        }
        (Language::En, "renotified", _) => format!("- {subject}{what}: still so, since {at}"),
        (Language::Zh, "renotified", _) => format!("- {subject}{what}，仍未恢复，始于 {at}"),
        (Language::En, ..) if item.after_silence => {
            format!("- {subject}{what}: still so after a silence, since {at}")
        }
        (Language::Zh, ..) if item.after_silence => {
            format!("- {subject}{what}，静默结束后仍未恢复，始于 {at}")
        }
        (Language::En, ..) => format!("- {subject}{what} since {at}"),
        (Language::Zh, ..) => format!("- {subject}{what}，始于 {at}"),
    }
}

/// What a rule found, in words: numbers of `detail`, and `names`, which are escaped.
fn what(language: Language, item: &Notification, names: &Names) -> String {
    let object = names.object.as_deref().unwrap_or_default();
    let number = |name: &str| item.detail[name].as_f64().unwrap_or_default();
    match (item.rule.as_str(), language) {
        ("host_silent", Language::En) => "no report".to_owned(),
        ("host_silent", Language::Zh) => "没有上报".to_owned(),
        ("host_never_reported", Language::En) => "enrolled, never reported".to_owned(),
        ("host_never_reported", Language::Zh) => "已注册，从未上报".to_owned(),
        ("host_clock_ahead", Language::En) => {
            format!("its clock is {:.0} s ahead", number("ahead_s"))
        }
        ("host_clock_ahead", Language::Zh) => format!("时钟快 {:.0} 秒", number("ahead_s")),
        ("host_clock_behind", Language::En) => {
            format!("its clock is {:.0} s behind", -number("ahead_s"))
        }
        ("host_clock_behind", Language::Zh) => format!("时钟慢 {:.0} 秒", -number("ahead_s")),
        ("host_clone_detected", Language::En) => {
            "two machines show its identity; what the second one sends is refused".to_owned()
        }
        ("host_clone_detected", Language::Zh) => {
            "两台机器使用同一身份，后出现的一台被拒绝".to_owned()
        }
        ("host_enrolls_too_often", Language::En) => {
            "its machine enrols again and again, and is told to wait".to_owned()
        }
        ("host_enrolls_too_often", Language::Zh) => "该机器反复注册，已被限制".to_owned(),
        ("mass_silence", Language::En) => {
            format!("{} of {} hosts fell silent within a minute", number("silent"), number("hosts"))
        }
        ("mass_silence", Language::Zh) => {
            format!("一分钟内 {} / {} 台主机失联", number("silent"), number("hosts"))
        }
        ("no_reports", Language::En) => {
            format!(
                "no host reports, of {} that did: look at the way to the server",
                number("hosts")
            )
        }
        ("no_reports", Language::Zh) => {
            format!("{} 台主机全部没有上报：请检查到服务器的链路", number("hosts"))
        }
        ("observation_gap", Language::En) => {
            format!("no server watched for {:.0} s; deadlines were moved", number("gap_s"))
        }
        ("observation_gap", Language::Zh) => {
            format!("服务器或数据库中断 {:.0} 秒，期限已顺延", number("gap_s"))
        }
        ("endpoint_down", Language::En) => format!(
            "the endpoint {object} does not answer {} of {} hosts; they report to another one",
            number("witnesses"),
            number("hosts")
        ),
        ("endpoint_down", Language::Zh) => format!(
            "{} / {} 台主机无法连接接入点 {object}，已切换到其他接入点",
            number("witnesses"),
            number("hosts")
        ),
        ("notification_dead", Language::En) => {
            format!("the channel {object} does not take messages; some were given up")
        }
        ("notification_dead", Language::Zh) => format!("通道 {object} 无法送达，部分消息已放弃"),
        _ => names.rule.clone(),
    }
}

/// What a rule over samples found: its name, the value, the threshold, and of what.
fn found(language: Language, item: &Notification, metric: &str, names: &Names) -> String {
    let is_ratio = metric.ends_with("_ratio");
    let number = |name: &str| item.detail[name].as_f64().map(|value| amount(value, is_ratio));
    let (value, threshold) = (number("value"), number("threshold").unwrap_or_default());
    let beyond = match (item.detail["below"].as_bool().unwrap_or_default(), language) {
        (false, Language::En) => "above",
        (true, Language::En) => "below",
        (false, Language::Zh) => "高于",
        (true, Language::Zh) => "低于",
    };
    let mut text = names.rule.clone();
    if let Some(value) = value {
        text = format!("{text} {value}, {beyond} {threshold}");
    }
    if let Some(object) = &names.object {
        text = format!("{text}, {object}");
    }
    text
}

fn amount(value: f64, is_ratio: bool) -> String {
    match value.abs() {
        _ if is_ratio => format!("{:.1} %", value * 100.0),
        size if size >= 1e9 => format!("{:.1} G", value / 1e9),
        size if size >= 1e6 => format!("{:.1} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// A process that was busy, and how busy.
pub fn busy(busy: &Busy, name: &str) -> String {
    let amount = match busy.resource {
        Resource::Cpu => format!("{:.2} CPU", busy.amount),
        _ => format!("{}B", bytes(busy.amount)),
    };
    format!("  {amount}  {name}")
}

fn bytes(size: f64) -> String {
    let units = [(1024.0 * 1024.0 * 1024.0, "Gi"), (1024.0 * 1024.0, "Mi"), (1024.0, "Ki")];
    match units.into_iter().find(|(unit, _)| size >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", size / unit),
        None => format!("{size:.0} "),
    }
}

/// The words of the link to the page.
pub fn evidence(language: Language) -> &'static str {
    match language {
        Language::En => "evidence",
        Language::Zh => "查看证据",
    }
}

fn clock(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = at.time().as_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date())
}

fn lasted(duration: time::Duration) -> String {
    let seconds = duration.whole_seconds().max(0);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

/// That `count` lines were left out.
pub fn more(language: Language, count: usize) -> String {
    match language {
        Language::En => format!("… and {count} more"),
        Language::Zh => format!("……另有 {count} 条"),
    }
}
