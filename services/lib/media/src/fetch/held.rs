//! Bytes that count as in flight for as long as anybody can read them.

use ops::metrics::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

/// A body and its share of `bytes_in_flight_max`; the share goes back with the last clone of its `Bytes`.
pub(super) struct Held {
    bytes: Vec<u8>,
    gauge: IntGauge,
    _room: OwnedSemaphorePermit,
}

impl Held {
    /// Keeps as much of `room` as the bytes take; the rest goes back at once.
    pub(super) fn new(bytes: Vec<u8>, mut room: OwnedSemaphorePermit, gauge: IntGauge) -> Self {
        let surplus = room.num_permits().saturating_sub(bytes.len());
        drop(room.split(surplus));
        gauge.add(bytes.len() as i64);
        Self { bytes, gauge, _room: room }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.bytes.len() as i64);
    }
}
