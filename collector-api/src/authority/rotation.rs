//! Replacing an authority under a fleet that reports.
//!
//! `begin` makes the next one: agents are given it with their next answer, doors verify with it, tokens
//! pin it, nothing is signed by it. `activate` lets it sign: the doors show certificates of it within
//! [`RELOAD`](super::live::RELOAD), and hosts renew theirs within a hundredth of a certificate's life;
//! what the old one signed is good until it is replaced. `finish` trusts the old one no longer. Each step
//! refuses while hosts are not ready, unless forced; `abort` gives up one that was not activated.
//!
//! A host that was off all the while comes back without anybody's help: one that missed a rotation of the
//! *client* authority recovers by its old key, one that missed up to three of the *server* authority finds the
//! [bridge](super::Authority::bridge_pem) to the new one in what the door shows. It trusts the old key until it
//! has been there: if that key was stolen, so was whoever it meets before.

use std::path::Path;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::live::SETTLED_S;
use super::sealing::SealingKey;
use super::{AuthorityError, Purpose, make, trust_id};
use crate::auth::secret::hex;
use crate::store::audit::Actor;
use crate::store::authorities::{Rotated, RotationStep};
use crate::store::{Store, StoreError};

/// An authority as operators see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Authority)]
pub struct AuthorityStatus {
    /// Its id.
    pub authority_id: Uuid,
    /// `server` or `client`.
    pub purpose: String,
    /// `next`, `active` or `retired`.
    pub state: String,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`), hex: what tokens pin.
    pub spki_sha256: String,
    /// End of its certificate.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// When it came into this state.
    #[serde(with = "time::serde::rfc3339")]
    pub state_changed_at: OffsetDateTime,
    /// PEM.
    pub certificate_pem: String,
    /// Hosts that the next step would shut out: for a server authority those that have not said that they
    /// know the authorities of now, for a client authority those with a good certificate of it.
    pub hosts: i64,
}

/// What an operator can do to a rotation that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The next authority signs, the active one retires.
    Activate,
    /// The retired authority is trusted no longer.
    Finish,
    /// The next authority is given up.
    Abort,
}

/// The authorities that count.
pub async fn status(store: &Store) -> Result<Vec<AuthorityStatus>, StoreError> {
    let rows = store.authorities().await?;
    let without = store.hosts_without_trust(&trust_id(&rows)).await?;
    let mut all = Vec::new();
    for row in rows {
        let hosts = if row.purpose == Purpose::Server.as_str() {
            without
        } else {
            store.hosts_signed_by(row.authority_id).await?
        };
        all.push(AuthorityStatus {
            authority_id: row.authority_id,
            purpose: row.purpose,
            state: row.state,
            spki_sha256: hex(&row.spki_sha256),
            not_after: row.not_after,
            state_changed_at: row.state_changed_at,
            certificate_pem: row.certificate_pem,
            hosts,
        });
    }
    Ok(all)
}

/// Makes the next authority of a purpose.
pub async fn begin(
    store: &Store,
    key_file: &Path,
    purpose: Purpose,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<Rotated, AuthorityError> {
    let key = SealingKey::read(key_file)?;
    // Only a key that opens what there is may seal what is added.
    let active = super::load_with(store, &key).await?;
    let before = (purpose == Purpose::Server).then_some(&active.server);
    Ok(store.begin_rotation(&make(purpose, &key, before, now)?, actor).await?)
}

/// Takes a rotation further.
pub async fn step(
    store: &Store,
    purpose: Purpose,
    step: Step,
    force: bool,
    actor: &Actor,
) -> Result<Rotated, StoreError> {
    let trust_id = trust_id(&store.authorities().await?);
    let step = match step {
        Step::Activate => {
            RotationStep::Activate { trust_id: &trust_id, settled_s: SETTLED_S, force }
        }
        Step::Finish => RotationStep::Finish { settled_s: SETTLED_S, force },
        Step::Abort => RotationStep::Abort,
    };
    store.rotate_authority(purpose.as_str(), step, actor).await
}

/// What an operator is told of a step that was not taken.
pub fn refusal(rotated: Rotated) -> Option<String> {
    Some(match rotated {
        Rotated::Done => return None,
        Rotated::UnderWay => {
            "A rotation of this authority is under way: finish or abort it first.".into()
        }
        Rotated::NotNow => "The rotation is not at this step: see the authorities' states.".into(),
        Rotated::TooSoon => format!(
            "Every server needs {SETTLED_S} seconds to read the step before: retry after that."
        ),
        Rotated::Needed(hosts) => format!(
            "{hosts} hosts are not ready: wait until they have renewed or fetched what they need, decommission them, or force it; those that are switched off find the way back by themselves."
        ),
    })
}
