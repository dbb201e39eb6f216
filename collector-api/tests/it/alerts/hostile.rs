//! What hosts call themselves brings neither mention, link nor markup into any message.

use collector_api::alerts::message::Message;
use collector_api::alerts::provider::{Destination, Kind};
use collector_api::alerts::wording::Language;
use collector_api::store::notifications::Notification;
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
    Message { language, items: vec![silent, found], now: datetime!(2026-11-23 07:02:00 UTC) }
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
        Kind::Webhook => return (String::new(), body),
    };
    (text.as_str().unwrap().to_owned(), body)
}

#[test]
fn no_name_makes_a_mention_a_link_or_markup() {
    for language in [Language::En, Language::Zh] {
        for kind in Kind::ALL {
            let (clean, _) = text(kind, &message("db1", language));
            for name in HOSTILE {
                let (text, body) = text(kind, &message(name, language));
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
            assert!(many.text(str::to_owned, limit).len() <= limit, "{limit}");
        }
    }
}
