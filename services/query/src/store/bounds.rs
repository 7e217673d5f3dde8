//! What bounds a page's work, in every database alike.

/// Candidates that one page looks at. Looking one up whose page is not cached cost SQLite 25 µs on a busy machine
/// (measured 2026-11-24, 200,000 rows): a page stays near 20 ms there, and below 5 ms on an idle one.
pub(super) const EXAMINED_MAX: usize = 1_000;

/// How far the rows of a condition are counted to find the rarest one.
pub(super) const PROBE_MAX: i64 = 1_000;

/// Bands of equal width over [0, 1]: a range of probabilities is a few whole bands, each read in order of time,
/// and two at its ends. 20 keeps both the merge and the ends' leftovers small. Chosen.
pub(super) const BANDS: i32 = 20;

/// The band of a probability in [0, 1].
pub(super) fn band(probability: f32) -> i32 {
    // In range by the row's and the filter's own checks; the last band includes 1.
    ((f64::from(probability) * f64::from(BANDS)) as i32).clamp(0, BANDS - 1)
}
