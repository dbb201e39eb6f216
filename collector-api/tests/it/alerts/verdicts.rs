//! What each provider's answers mean.

use collector_api::alerts::provider::{Incoming, Kind, Verdict};

/// Who answers; the status, its `Retry-After` in seconds, the body; what is made of it.
type Case = (Kind, u16, Option<u32>, &'static str, Option<(&'static str, Option<u32>)>);

#[test]
fn a_status_of_200_is_no_success_by_itself() {
    let later = |pause| Some(("later", pause));
    let cases: [Case; 21] = [
        (Kind::Wecom, 200, None, r#"{"errcode":0}"#, None),
        (Kind::Wecom, 200, None, r#"{"errcode":45009}"#, later(Some(60))),
        (Kind::Wecom, 200, None, r#"{"errcode":-1}"#, later(None)),
        (Kind::Wecom, 200, None, r#"{"errcode":40058}"#, Some(("too long", None))),
        (Kind::Wecom, 200, None, r#"{"errcode":93000}"#, Some(("refused", None))),
        (Kind::Wecom, 200, None, "<html>", later(None)),
        (Kind::Wecom, 502, None, "", later(None)),
        (Kind::Wecom, 429, Some(7), "", later(Some(7))),
        (Kind::Dingtalk, 200, None, r#"{"errcode":0}"#, None),
        (Kind::Dingtalk, 200, None, r#"{"errcode":130101}"#, later(Some(600))),
        (Kind::Dingtalk, 302, None, "", later(Some(600))),
        (Kind::Dingtalk, 200, None, r#"{"errcode":310000}"#, Some(("refused", None))),
        (Kind::Feishu, 200, None, r#"{"code":0}"#, None),
        (Kind::Feishu, 400, None, r#"{"code":9499,"msg":"too many request"}"#, later(Some(60))),
        (Kind::Feishu, 200, None, r#"{"code":11232}"#, later(Some(60))),
        (Kind::Feishu, 200, None, r#"{"code":19021}"#, Some(("refused", None))),
        (Kind::Slack, 200, None, "ok", None),
        (Kind::Slack, 429, Some(30), "", later(Some(30))),
        (Kind::Slack, 404, None, "no_service", Some(("refused", None))),
        (Kind::Webhook, 204, None, "", None),
        (Kind::Webhook, 301, None, "", Some(("refused", None))),
    ];
    for (kind, status, retry_after_s, body, expected) in cases {
        let answer = Incoming { status, retry_after_s, body: body.into() };
        let found = match kind.verdict(&answer) {
            Verdict::Delivered => None,
            Verdict::Later(pause, _) => Some(("later", pause)),
            Verdict::TooLong(_) => Some(("too long", None)),
            Verdict::Refused(_) => Some(("refused", None)),
        };
        assert_eq!(found, expected, "{kind:?} {status} {body}");
    }
}
