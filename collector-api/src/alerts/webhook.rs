//! Any receiver of JSON. `procfleet-signature: t=<s>,v1=<hex>` is HMAC-SHA256 with the channel's secret
//! over `<s>.<body>`; `idempotency-key` names what is told, so that a repeat can be dropped.
//!
//! Strings in it are as hosts sent them: whoever shows them must escape them.

use reqwest::Url;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::evidence::{Busy, Evidence};
use super::message::Message;
use super::provider::{Outgoing, json_body};
use crate::auth::secret::hex;

/// The request.
pub fn request(url: Url, secret: Option<&str>, message: &Message) -> Outgoing {
    let items: Vec<Value> = message.items.iter().map(|item| {
        json!({
            "notification_id": item.notification_id, "alert_id": item.alert_id, "kind": item.kind,
            "rule": item.rule, "severity": item.severity, "host_id": item.host_id, "host_name": item.host_name,
            "detail": item.detail, "began_at": rfc3339(Some(item.began_at)),
            "resolved_at": rfc3339(item.resolved_at), "after_silence": item.after_silence,
            "evidence": Evidence::of_notification(item, message.now).map(|evidence| evidence_of(&evidence, message)),
            "busiest": message.busiest.get(&item.notification_id).map(|busy| busiest(busy)),
        })
    }).collect();
    let body =
        json_body(&json!({ "version": 1, "test": items.is_empty(), "notifications": items }));
    let mut told = Sha256::new();
    for item in &message.items {
        told.update(item.notification_id.to_be_bytes());
    }
    let mut headers = vec![("idempotency-key", hex(&told.finalize()[..16]))];
    if let Some(secret) = secret {
        let at = message.now.unix_timestamp();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signed = [format!("{at}.").as_bytes(), &body].concat();
        let sign = hex(hmac::sign(&key, &signed).as_ref());
        headers.push(("procfleet-signature", format!("t={at},v1={sign}")));
    }
    Outgoing { url, headers, body }
}

/// Links are whole where the page's address is known, paths otherwise.
fn evidence_of(evidence: &Evidence, message: &Message) -> Value {
    let base = message.page.as_ref().map(ToString::to_string).unwrap_or_default();
    json!({
        "from": rfc3339(Some(evidence.from)), "to": rfc3339(Some(evidence.to)),
        "page": format!("{base}{}", evidence.page), "processes": format!("{base}{}", evidence.processes),
    })
}

fn busiest(busy: &[Busy]) -> Vec<Value> {
    let value = |one: &Busy| json!({ "command_line": one.name, "resource": one.resource, "amount": one.amount });
    busy.iter().map(value).collect()
}

fn rfc3339(at: Option<OffsetDateTime>) -> Option<String> {
    at?.format(&Rfc3339).ok()
}
