//! Who may come in: one request per host at a time, and a budget of decoded bytes for all of them.
//! Both are decided before a body is read.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared_model::ProblemCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::pace;
use crate::error::{ApiError, ApiResult};
use crate::metrics::INGEST_SHED;

/// Granularity of the budget, bytes.
const UNIT: usize = 1024;
/// When a host whose other request is in progress should come back.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The door to this replica's ingest, cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    budget: Arc<Semaphore>,
    units: usize,
    hosts: Arc<Mutex<HashSet<Uuid>>>,
}

impl Admission {
    pub(super) fn new(memory_bytes: usize) -> Self {
        let units = (memory_bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(units)), units, hosts: Arc::default() }
    }

    /// Share of the budget in use, 0 to 1.
    pub(super) fn load(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.budget.available_permits() as f64 / self.units.max(1) as f64;
        1.0 - share
    }

    /// Lets a request of `host` in, with `bytes` of the budget.
    pub(super) fn enter(&self, host: Uuid, bytes: usize) -> ApiResult<Admitted> {
        let free = self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
        if !free {
            metrics::counter!(INGEST_SHED, "place" => "host_in_flight").increment(1);
            return Err(ApiError::new(
                ProblemCode::TooManyRequests,
                "Another request of this host is in progress; one at a time.",
            )
            .retry_after(RETRY_AFTER));
        }
        let place = HostPlace { hosts: Arc::clone(&self.hosts), host };
        let permit =
            Arc::clone(&self.budget).try_acquire_many_owned(0).map_err(|_| overloaded())?;
        let mut admitted = Admitted { reserved: 0, permit, _place: place };
        admitted.reserve(bytes)?;
        Ok(admitted)
    }
}

/// The answer when the budget is used up.
fn overloaded() -> ApiError {
    metrics::counter!(INGEST_SHED, "place" => "memory_budget").increment(1);
    ApiError::new(ProblemCode::Overloaded, "This server holds as many reports as it may; retry.")
        .retry_after(pace::retry_after(pace::random_unit()))
}

/// A request that is in. Goes with its reports to the writer; dropping it makes room.
#[derive(Debug)]
pub(super) struct Admitted {
    reserved: usize,
    permit: OwnedSemaphorePermit,
    _place: HostPlace,
}

impl Admitted {
    /// Makes the share of the budget at least `bytes`, without waiting.
    pub(super) fn reserve(&mut self, bytes: usize) -> ApiResult<()> {
        let units = bytes.div_ceil(UNIT);
        if let Some(missing) = units.checked_sub(self.reserved).filter(|missing| *missing > 0) {
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let more = Arc::clone(self.permit.semaphore())
                .try_acquire_many_owned(missing)
                .map_err(|_| overloaded())?;
            self.permit.merge(more);
            self.reserved = units;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct HostPlace {
    hosts: Arc<Mutex<HashSet<Uuid>>>,
    host: Uuid,
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_per_host_and_a_bounded_budget() {
        let admission = Admission::new(10 * UNIT);
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        let mut first = admission.enter(a, 6 * UNIT).unwrap();
        assert_eq!(admission.enter(a, 1).unwrap_err().problem.code, ProblemCode::TooManyRequests);
        assert_eq!(admission.enter(b, 5 * UNIT).unwrap_err().problem.code, ProblemCode::Overloaded);
        let second = admission.enter(b, 4 * UNIT).unwrap();
        assert_eq!(first.reserve(7 * UNIT).unwrap_err().problem.code, ProblemCode::Overloaded);
        drop(second);
        first.reserve(10 * UNIT).unwrap();
        drop(first);
        assert_eq!(admission.budget.available_permits(), 10);
        admission.enter(a, 10 * UNIT).unwrap();
    }
}
