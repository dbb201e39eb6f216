//! What a message tells, and how it is made to fit: the lines of a text, and the characters that data
//! must not bring into it.

use std::collections::BTreeMap;

pub use shared_model::harmless::{plain, unmarked};
use time::OffsetDateTime;

use super::evidence::{Busy, Evidence};
use super::wording::{self, Language, Names};
use crate::config::public_url::PublicUrl;
use crate::store::notifications::Notification;

/// Longest a name from a host may be in a message, characters.
const MAX_NAME: usize = 100;
/// Notifications of one message that have links.
const MAX_LINKED: usize = 5;

/// One message: one notification, or a digest of many.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of its words.
    pub language: Language,
    /// What to tell; empty: a test.
    pub items: Vec<Notification>,
    /// When it is sent.
    pub now: OffsetDateTime,
    /// Where people find the page; none: no links.
    pub page: Option<PublicUrl>,
    /// Who was busiest, by notification.
    pub busiest: BTreeMap<i64, Vec<Busy>>,
}

/// How a provider writes text.
#[derive(Clone, Copy)]
pub struct Style {
    /// Makes what data brings harmless.
    pub escape: fn(&str) -> String,
    /// A link of ours, with its words.
    pub link: fn(&str, &str) -> String,
}

/// Text without markup, in which addresses become links by themselves.
pub const PLAIN: Style = Style { escape: plain, link: |words, url| format!("{words}: {url}") };

impl Message {
    /// Its paragraphs: a heading, then one per notification. What data brings went through `escape`.
    pub fn paragraphs(&self, style: Style) -> Vec<String> {
        let mut paragraphs = vec![wording::heading(self)];
        paragraphs.extend(self.items.iter().map(|item| self.paragraph(item, style)));
        paragraphs
    }

    /// What happened; who was busiest; where to look, of few only.
    fn paragraph(&self, item: &Notification, style: Style) -> String {
        let escaped = |text: &str| (style.escape)(&shortened(text));
        let mut text = self.line(item, style);
        for busy in self.busiest.get(&item.notification_id).into_iter().flatten() {
            text.push('\n');
            text.push_str(&wording::busy(busy, &escaped(&busy.name)));
        }
        if self.items.len() <= MAX_LINKED
            && let Some(page) = &self.page
            && let Some(evidence) = Evidence::of_notification(item, self.now)
        {
            text.push('\n');
            let url = format!("{page}{}", evidence.page);
            text.push_str(&(style.link)(wording::evidence(self.language), &url));
        }
        text
    }

    /// What happened, in one line.
    pub fn line(&self, item: &Notification, style: Style) -> String {
        let escaped = |text: &str| (style.escape)(&shortened(text));
        let names = Names {
            host: item.host_name.as_deref().map(escaped),
            rule: escaped(&item.rule),
            object: item.detail["object"].as_str().map(escaped),
        };
        wording::line(self.language, item, &names)
    }

    /// Its paragraphs as one text of at most `limit` bytes. What does not fit is counted in the last line.
    pub fn text(&self, style: Style, limit: usize) -> String {
        let lines = self.paragraphs(style);
        // Room for the last line that counts.
        let room = limit.saturating_sub(64);
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            if text.len() + line.len() + 1 > if is_last { limit } else { room } {
                if at == 0 {
                    cut(line, limit).clone_into(&mut text);
                } else {
                    text.push('\n');
                    text.push_str(&wording::more(self.language, lines.len() - at));
                }
                break;
            }
            if at > 0 {
                text.push('\n');
            }
            text.push_str(line);
        }
        cut(&text, limit).to_owned()
    }
}

/// A time in a link: RFC 3339 in UTC without a fraction.
pub fn at_second(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (hour, minute, second) = at.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
}

/// The beginning of `text`, at most `bytes` long, cut between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}
