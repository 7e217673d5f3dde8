//! Moments drawn at random, so that every run fails somewhere else; the seed is printed.

/// A source of moments.
#[derive(Debug)]
pub struct Moments(u64);

impl Moments {
    /// From the clock, or from `TOUCHSTONE_SEED`, to see a run again.
    pub fn new() -> Self {
        let told = std::env::var("TOUCHSTONE_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seed = told.unwrap_or_else(|| u64::from(now().subsec_nanos()) | 1);
        tell(seed);
        Self(seed)
    }

    /// xorshift64 (Marsaglia, 2003).
    pub fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(clippy::print_stderr, reason = "a test's output is where a seed is looked for")]
fn tell(seed: u64) {
    eprintln!("moments drawn from seed {seed}: TOUCHSTONE_SEED={seed} draws them again");
}
