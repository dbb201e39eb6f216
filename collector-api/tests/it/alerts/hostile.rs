//! What hosts call themselves brings neither mention, link nor markup into any message.

use std::collections::BTreeMap;

use collector_api::alerts::evidence::Busy;
use collector_api::alerts::message::{Message, PLAIN};
use collector_api::alerts::provider::{Destination, Kind};
use collector_api::alerts::wording::Language;
use collector_api::store::notifications::Notification;
use collector_api::store::usage::Resource;
use serde_json::{Value, json};
use time::macros::datetime;
use uuid::Uuid;

const HOSTILE: [&str; 14] = [
    "@all",
    "<@all>",
    "<at user_id=\"all\">everyone</at>",
    "<!channel>",
    "<!here|now>",
    "[click](https://evil.example/?x)",
    "![x](http://evil.example/x.png)",
    "<https://evil.example|db1>",
    "www.evil.example",
    "**bold** _it_ `code` ~~gone~~ # head",
    "a\n> quoted\r\n# head",
    "\u{202e}elbaT\u{200b}@all\u{2066}",
    "<font color=\"warning\">x</font>",
    "&lt;@all&gt;",
];

/// A silent host, and what a rule found of a process: everything that data says is `name`.
fn message(host_name: &str, language: Language) -> Message {
    let silent = Notification {
        notification_id: 1,
        alert_id: Uuid::nil(),
        kind: "fired".into(),
        rule: "host_silent".into(),
        severity: "critical".into(),
        host_id: Some(Uuid::nil()),
        host_name: Some(host_name.into()),
        detail: json!({}),
        began_at: datetime!(2026-11-23 07:00:00 UTC),
        resolved_at: None,
        after_silence: false,
    };
    let found = Notification {
        notification_id: 2,
        rule: host_name.into(),
        detail: json!({ "metric": "process.cpu_cores", "value": 3.5, "threshold": 2.0, "below": false, "object": host_name }),
        ..silent.clone()
    };
    let busy = Busy { name: host_name.into(), resource: Resource::Cpu, amount: 3.5 };
    Message {
        language,
        items: vec![silent, found],
        now: datetime!(2026-11-23 07:02:00 UTC),
        page: Some(PAGE.to_owned().try_into().unwrap()),
        busiest: BTreeMap::from([(2, vec![busy])]),
    }
}

/// Where links of ours lead.
const PAGE: &str = "https://procfleet.example";

/// The text without our own links, of which there must be exactly two: nothing that data brings may add one.
fn without_links(kind: Kind, text: &str) -> String {
    let evidence = "/host/00000000-0000-0000-0000-000000000000?from=2026-11-23T06:45:00Z&to=2026-11-23T07:02:00Z";
    let url = format!("{PAGE}{evidence}");
    let link = |words: &str| match kind {
        Kind::Wecom => format!("[{words}]({url})"),
        Kind::Slack => format!("<{}|{words}>", url.replace('&', "&amp;")),
        _ => format!("{words}: {url}"),
    };
    let links = [link("evidence"), link("查看证据")];
    let found: usize = links.iter().map(|link| text.matches(link.as_str()).count()).sum();
    assert_eq!(found, 2, "{kind:?}: {text}");
    links.iter().fold(text.to_owned(), |text, link| text.replace(link.as_str(), ""))
}

fn destination() -> Destination {
    Destination { url: "https://robot.example/send?key=k".into(), secret: Some("s".into()) }
}

fn text(kind: Kind, message: &Message) -> (String, Value) {
    let body = kind.request(&destination(), message, kind.limit()).unwrap().body;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = match kind {
        Kind::Wecom => &body["markdown"]["content"],
        Kind::Dingtalk => &body["text"]["content"],
        Kind::Feishu => &body["content"]["text"],
        Kind::Slack => &body["text"],
        _ => return (String::new(), body),
    };
    (text.as_str().unwrap().to_owned(), body)
}

#[test]
fn no_name_makes_a_mention_a_link_or_markup() {
    for language in [Language::En, Language::Zh] {
        for kind in [Kind::Wecom, Kind::Dingtalk, Kind::Feishu, Kind::Slack] {
            let (clean, _) = text(kind, &message("db1", language));
            let clean = without_links(kind, &clean);
            for name in HOSTILE {
                let (text, body) = text(kind, &message(name, language));
                let text = without_links(kind, &text);
                assert_ne!(body["text"]["at"]["isAtAll"], true);
                for bad in ['@', '<', '>', '&', '\r', '\u{202e}', '\u{200b}', '\u{2066}'] {
                    assert!(!text.contains(bad), "{kind:?} {name:?}: {text}");
                }
                assert!(
                    !text.contains("://") && !text.contains("www."),
                    "{kind:?} {name:?}: {text}"
                );
                assert_eq!(
                    text.lines().count(),
                    clean.lines().count(),
                    "{kind:?} {name:?}: {text}"
                );
                if kind == Kind::Wecom {
                    for bad in ['*', '`', '[', ']', '(', ')', '~', '#', '!', '\\', '|', '_'] {
                        // Our own words have none of them either.
                        assert!(!text.contains(bad), "{name:?}: {text}");
                    }
                }
            }
        }
    }
}

#[test]
fn texts_keep_the_limits_of_bytes_and_are_cut_between_characters() {
    let mut many = message("主机", Language::Zh);
    let item = many.items[0].clone();
    many.items = (0..500)
        .map(|n| Notification {
            host_name: Some(format!("{}{n}", "主机".repeat(200))),
            ..item.clone()
        })
        .collect();
    for kind in [Kind::Wecom, Kind::Dingtalk, Kind::Feishu, Kind::Slack] {
        let (text, _) = text(kind, &many);
        assert!(text.len() <= kind.limit(), "{kind:?} {}", text.len());
        assert!(text.contains("另有"), "{kind:?}");
        for limit in 0..300 {
            assert!(many.text(PLAIN, limit).len() <= limit, "{limit}");
        }
    }
}
