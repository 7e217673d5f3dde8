//! Room for what is taken in, and room for pixels.

use std::sync::Arc;

use ops::metrics::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of 1 KiB: a semaphore's request is 32 bits wide.
const UNIT: usize = 1024;

/// A bound on bytes in memory. Cloning shares it.
#[derive(Clone)]
pub(crate) struct ByteBudget {
    units: Arc<Semaphore>,
    total: u32,
}

impl ByteBudget {
    /// Room for `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX >> 4).max(1);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for room; what is larger than the whole budget gets all of it, alone.
    pub(crate) async fn acquire(&self, bytes: usize) -> Share {
        let permit = Arc::clone(&self.units).acquire_many_owned(self.weigh(bytes)).await;
        Share { permit: permit.expect("the semaphore is never closed") }
    }

    fn try_acquire(&self, bytes: usize) -> Option<Share> {
        let permit = Arc::clone(&self.units).try_acquire_many_owned(self.weigh(bytes)).ok()?;
        Some(Share { permit })
    }

    fn weigh(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total)
    }
}

/// A share of a [`ByteBudget`], until it is dropped.
pub(crate) struct Share {
    permit: OwnedSemaphorePermit,
}

impl Share {
    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes.div_ceil(UNIT));
        drop(self.permit.split(surplus));
    }
}

/// Room for records that are taken in and not yet committed.
#[derive(Clone)]
pub(crate) struct IntakeBudget {
    records: Arc<Semaphore>,
    bytes: ByteBudget,
    gauge: IntGauge,
}

/// Room for one record; travels with it to its commit.
pub(crate) struct Permit {
    _record: OwnedSemaphorePermit,
    _bytes: Share,
    gauge: IntGauge,
}

impl IntakeBudget {
    /// Room for so many records of so many bytes; `gauge` shows how many there are.
    pub(crate) fn new(records: usize, bytes: usize, gauge: IntGauge) -> Self {
        Self { records: Arc::new(Semaphore::new(records)), bytes: ByteBudget::new(bytes), gauge }
    }

    /// Room for a record of `bytes`, if there is some now.
    pub(crate) fn try_admit(&self, bytes: usize) -> Option<Permit> {
        let record = Arc::clone(&self.records).try_acquire_owned().ok()?;
        Some(self.permit(record, self.bytes.try_acquire(bytes)?))
    }

    /// Waits until there is room for a record of `bytes`. Cancel safe.
    pub(crate) async fn admit(&self, bytes: usize) -> Permit {
        let record = Arc::clone(&self.records).acquire_owned().await;
        let record = record.expect("the semaphore is never closed");
        self.permit(record, self.bytes.acquire(bytes).await)
    }

    fn permit(&self, record: OwnedSemaphorePermit, bytes: Share) -> Permit {
        self.gauge.inc();
        Permit { _record: record, _bytes: bytes, gauge: self.gauge.clone() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use ops::metrics::{Registry, gauge};

    use super::*;

    #[tokio::test]
    async fn room_is_given_back_by_dropping() {
        let shown = gauge(&Registry::new(), "touchstone_test_uncommitted", "test").unwrap();
        let budget = IntakeBudget::new(2, 8 * UNIT, shown.clone());
        let one = budget.try_admit(6 * UNIT).unwrap();
        assert!(budget.try_admit(3 * UNIT).is_none(), "bytes are bounded");
        let two = budget.try_admit(100).unwrap();
        assert!(budget.try_admit(1).is_none(), "records are bounded");
        assert_eq!(shown.get(), 2);
        drop((one, two));
        let alone = budget.admit(usize::MAX).await;
        assert!(budget.try_admit(1).is_none(), "larger than the budget: alone");
        drop(alone);
        assert_eq!(shown.get(), 0);
    }

    #[tokio::test]
    async fn a_share_can_shrink() {
        let budget = ByteBudget::new(10 * UNIT);
        let mut share = budget.acquire(9 * UNIT).await;
        assert!(budget.try_acquire(2 * UNIT).is_none());
        share.shrink_to(3 * UNIT);
        assert!(budget.try_acquire(7 * UNIT).is_some());
    }
}
