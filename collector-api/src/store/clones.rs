//! One identity, one machine: who holds a host's identity, and what becomes of another that shows it.
//!
//! A certificate does not tell a machine from a copy of its disk. So agents name, beside it, the *place*
//! they run in (machine, boot, state directory). The place that stored something last holds the identity,
//! for one and a half of its intervals and 15 s ([`lock`]): another place is told to wait that long. If the
//! holder is gone (a reboot, a disk that moved), the other place takes over without anybody noticing. If
//! the holder stores something twice while the other waits, two machines live: once could be a request
//! that was late, as an agent has one in flight. From then on the other place is refused and the
//! conflict stands, for operators to see, until both have not spoken for [`MEMORY_S`] or an operator clears
//! it. Nothing of a place that does not hold the identity is stored.
//!
//! All of it is decided in the transaction that stores, under the lock of the host's heartbeat: replicas
//! cannot disagree. A goodbye for good ends the hold at once; one that means to come back does not.
//!
//! Limits: which of two machines is the true one nobody can know here; the one that was first holds on. A
//! copy that speaks first after an outage longer than the hold takes over, and the conflict shows when
//! the other is back. A machine that was copied with its memory names the same place, and is not told apart.
//! Agents that name no place are not looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{Actor, record_host};
use super::certificates::{lock_heartbeat, lock_host};
use super::{Store, StoreError};

/// How long a conflict stands after both machines last spoke, s. The view `procfleet_hosts` knows it too.
const MEMORY_S: f64 = 3600.0;
/// What the holder must store after a rival came.
const PROOF: i16 = 2;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Its place holds the identity.
    Holds,
    /// Another place spoke a moment ago: come back after this time.
    Wait(Duration),
    /// Another place holds it, and lives.
    Clone,
}

/// Who holds a host's identity, its heartbeat locked until the end of the transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Holder {
    place: Option<Uuid>,
    /// Until its hold ends; negative: it ended.
    left_s: f64,
    conflict: Option<Conflict>,
    changed: bool,
    /// It was proven in this transaction.
    detected_now: bool,
}

#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a row, none of which decides another")]
struct Conflict {
    rival: Uuid,
    answers: i16,
    detected: bool,
    /// Both spoke within [`MEMORY_S`].
    stands: bool,
    /// The rival spoke after both were last seen.
    knocked: bool,
    /// The rival spoke in this transaction.
    knocks: bool,
    /// Both are seen in this transaction.
    seen: bool,
}

impl Holder {
    /// Decides about a request that names `place`.
    pub(super) fn claim(&mut self, place: Option<Uuid>) -> Claim {
        let Some(place) = place else { return Claim::Holds };
        let held_by_another = self.place.is_some_and(|holder| holder != place);
        let stands = self.conflict.is_some_and(|conflict| conflict.stands);
        if !held_by_another {
            return Claim::Holds;
        }
        if self.left_s <= 0.0 && !stands {
            self.place = Some(place);
            // What it knows of a rival was about the holder before.
            self.changed |= self.conflict.take().is_some();
            return Claim::Holds;
        }
        let known =
            self.conflict.filter(|known| stands || (!known.detected && known.rival == place));
        let before = known.unwrap_or(Conflict {
            rival: place,
            answers: 0,
            detected: false,
            stands: false,
            knocked: false,
            knocks: false,
            seen: false,
        });
        self.conflict = Some(Conflict { rival: place, knocked: true, knocks: true, ..before });
        self.changed = true;
        if stands {
            Claim::Clone
        } else {
            Claim::Wait(Duration::from_secs_f64(self.left_s.max(1.0)))
        }
    }

    /// Notes that its place stored something new.
    pub(super) fn stored(&mut self) {
        let Some(conflict) = &mut self.conflict else { return };
        if conflict.detected && !conflict.knocked {
            return;
        }
        conflict.answers = conflict.answers.saturating_add(1);
        if !conflict.detected && conflict.answers >= PROOF {
            conflict.detected = true;
            self.detected_now = true;
        }
        conflict.seen = conflict.detected;
        conflict.stands = conflict.detected;
        conflict.knocked &= !conflict.detected;
        self.changed = true;
    }
}

/// Locks the heartbeats of `hosts` (sorted, distinct).
pub(super) async fn lock(
    connection: &mut PgConnection,
    hosts: &[Uuid],
) -> Result<BTreeMap<Uuid, Holder>, StoreError> {
    let rows = sqlx::query!(
        r#"/* store::clones::lock */
        select b.host_id, b.place, c.rival_place as "rival_place?", c.answers as "answers?",
            coalesce(extract(epoch from b.place_heard_at
                + coalesce(b.interval_ms, 30000) * interval '1.5 ms' + interval '15 s' - now()), -1)::double precision as "left_s!",
            c.detected_at is not null as "detected!",
            coalesce(c.seen_at > now() - make_interval(secs => $2), false) as "stands!",
            coalesce(c.knocked_at > c.seen_at, true) as "knocked!"
        from heartbeats b left join clone_conflicts c on c.host_id = b.host_id
        where b.host_id = any ($1) order by b.host_id for update of b"#,
        hosts,
        MEMORY_S,
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::of("insert_reports.lock_holders"))?;
    let holder = |conflict, place, left_s| Holder { place, left_s, conflict, ..Holder::default() };
    let known = rows.into_iter().map(|row| {
        let conflict = row.rival_place.map(|rival| Conflict {
            rival,
            answers: row.answers.unwrap_or(0),
            detected: row.detected,
            stands: row.stands,
            knocked: row.knocked,
            knocks: false,
            seen: false,
        });
        (row.host_id, holder(conflict, row.place, row.left_s))
    });
    Ok(known.collect())
}

/// Writes what changed about conflicts. The hosts of those proven now.
pub(super) async fn save(
    connection: &mut PgConnection,
    holders: &BTreeMap<Uuid, Holder>,
) -> Result<Vec<Uuid>, StoreError> {
    let mut detected = Vec::new();
    for (host_id, holder) in holders.iter().filter(|(_, holder)| holder.changed) {
        save_one(connection, *host_id, holder)
            .await
            .map_err(StoreError::of("insert_reports.save_conflicts"))?;
        if holder.detected_now {
            detected.push(*host_id);
        }
    }
    Ok(detected)
}

/// Conflicts are rare: one statement each.
async fn save_one(
    connection: &mut PgConnection,
    host_id: Uuid,
    holder: &Holder,
) -> Result<(), sqlx::Error> {
    let Some(conflict) = holder.conflict else {
        sqlx::query!(
            "/* store::clones::save */
            delete from clone_conflicts where host_id = $1",
            host_id
        )
        .execute(connection)
        .await?;
        return Ok(());
    };
    sqlx::query!(
        "/* store::clones::save */
        insert into clone_conflicts as known (host_id, rival_place, answers, detected_at, seen_at)
        values ($1, $2, $3, case when $4 then now() end, case when $5 then now() end)
        on conflict (host_id) do update set rival_place = $2, answers = $3,
            knocked_at = case when $6 then now() else known.knocked_at end,
            detected_at = case when not $4 then null when $7 then now() else known.detected_at end,
            seen_at = case when $5 then now() when not $4 then null else known.seen_at end",
        host_id,
        conflict.rival,
        conflict.answers,
        conflict.detected,
        conflict.seen,
        conflict.knocks,
        holder.detected_now,
    )
    .execute(&mut *connection)
    .await?;
    if holder.detected_now {
        let detail = json!({ "place": holder.place, "rival_place": conflict.rival });
        record_host(connection, &Actor::server(), "host.clone_detected", host_id, detail).await?;
    }
    Ok(())
}

impl Store {
    /// Forgets the conflict of a host: whoever holds the identity goes on, and another machine may take over
    /// when that is gone. False: there is no such host.
    pub async fn clear_clone_conflict(
        &self,
        host_id: Uuid,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.try_clear_conflict(host_id, actor)
            .await
            .map_err(StoreError::of("clear_clone_conflict"))
    }

    async fn try_clear_conflict(&self, host_id: Uuid, actor: &Actor) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        lock_heartbeat(&mut transaction, host_id).await?;
        if lock_host(&mut transaction, host_id).await?.is_none() {
            return Ok(false);
        }
        let cleared = sqlx::query!(
            "-- Store::clear_clone_conflict
            delete from clone_conflicts where host_id = $1",
            host_id
        )
        .execute(&mut *transaction)
        .await?;
        let detail = json!({ "was_there": cleared.rows_affected() > 0 });
        record_host(&mut transaction, actor, "host.clear_clone_conflict", host_id, detail).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn held(left_s: f64) -> Holder {
        Holder { place: Some(A), left_s, ..Holder::default() }
    }

    #[test]
    fn a_host_that_comes_back_is_no_clone() {
        let mut new = Holder::default();
        assert_eq!(new.claim(Some(A)), Claim::Holds, "the first one");
        let mut same = held(20.0);
        assert_eq!(same.claim(Some(A)), Claim::Holds, "the agent was restarted");
        assert_eq!(same.claim(None), Claim::Holds, "an older agent");
        let mut gone = held(-1.0);
        assert_eq!(gone.claim(Some(B)), Claim::Holds, "another boot, or the disk moved");
        assert_eq!(gone.place, Some(B));
        // A crash, a fast boot, and a last request of the old boot that was late.
        let mut fast = held(20.0);
        assert_eq!(fast.claim(Some(B)), Claim::Wait(Duration::from_secs(20)));
        assert_eq!(fast.claim(Some(A)), Claim::Holds);
        fast.stored();
        assert_eq!(fast.claim(Some(B)), Claim::Wait(Duration::from_secs(20)));
        fast.left_s = -1.0;
        assert_eq!(fast.claim(Some(B)), Claim::Holds);
        assert!(fast.conflict.is_none() && !fast.detected_now);
    }

    #[test]
    fn two_machines_that_live_are_told_apart_and_the_first_one_stays() {
        let mut both = held(20.0);
        both.stored();
        assert!(!both.changed, "nothing is written for a host without a rival");
        assert!(matches!(both.claim(Some(B)), Claim::Wait(_)));
        both.stored();
        assert!(!both.detected_now);
        both.stored();
        assert!(both.detected_now);
        assert_eq!(both.claim(Some(B)), Claim::Clone);
        // Even when the holder is quiet for a while: it is restarted, or the servers were away.
        both.left_s = -100.0;
        assert_eq!(both.claim(Some(B)), Claim::Clone);
        assert_eq!(both.claim(Some(A)), Claim::Holds);
        // Not seen for long: whoever is there.
        both.conflict = both.conflict.map(|conflict| Conflict { stands: false, ..conflict });
        assert_eq!(both.claim(Some(B)), Claim::Holds);
    }

    #[test]
    fn a_conflict_that_is_over_is_proven_anew() {
        let mut over = held(20.0);
        let old = Conflict {
            rival: B,
            answers: 9,
            detected: true,
            stands: false,
            knocked: false,
            knocks: false,
            seen: false,
        };
        over.conflict = Some(old);
        over.stored();
        assert!(!over.changed);
        assert!(matches!(over.claim(Some(B)), Claim::Wait(_)));
        over.stored();
        assert!(!over.detected_now);
        over.stored();
        assert!(over.detected_now);
    }
}
